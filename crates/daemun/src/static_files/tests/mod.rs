//! The handler from a request to its response, over trees on a real disk.

mod answers;
mod containment;
mod memory;

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tempfile::TempDir;

use super::{Missing, Root, StaticFiles, StaticSettings};
use crate::handler::{Handler, HandlerError, Outcome};
use crate::http::{
    CanonicalPath, Endpoint, HeadBuilder, Interim, Request, RequestBody, RequestHead, Response, ResponseBody, Scheme,
    Version,
};

/// The head of a request with these fields.
pub(super) fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    let mut places = Vec::new();
    for (name, value) in fields {
        let start = text.len();
        write!(text, "{name}: {value}\r\n").unwrap();
        let value_start = start + name.len() + 2;
        places.push((start..start + name.len(), value_start..value_start + value.len()));
    }
    let bytes = Bytes::from(text);
    let target_start = method.len() + 1;
    let whole = &bytes[target_start..target_start + target.len()];
    let mut builder = HeadBuilder::new(bytes.clone(), Version::Http11, &bytes[..method.len()], whole);
    match whole.iter().position(|&byte| byte == b'?') {
        Some(mark) => builder.path(&whole[..mark], Some(&whole[mark + 1..])),
        None => builder.path(whole, None),
    }
    for (name, value) in places {
        builder.field(&bytes[name], &bytes[value]);
    }
    builder.finish()
}

/// SplitMix64: small, and good enough to wander through inputs. The seed is printed, and `DAEMUN_SEED` sets it.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(test: &str) -> Self {
        let seed = std::env::var("DAEMUN_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        eprintln!("{test}: DAEMUN_SEED={seed}");
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A root with some files, and `outside` beside it with a secret.
struct Site {
    folder: TempDir,
    settings: StaticSettings,
}

impl Site {
    /// `files` are put below the root, old enough for their times to be trusted.
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir_all(folder.path().join("root")).unwrap();
        fs::create_dir_all(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/secret.txt"), "secret").unwrap();
        let settings = StaticSettings {
            roots: vec![Root { path: folder.path().join("root"), prefix: String::new() }],
            index: vec!["index.html".to_owned()],
            cache: true,
            precompressed: true,
            ..StaticSettings::default()
        };
        let site = Self { folder, settings };
        for (name, content) in files {
            site.write(name, content);
        }
        site
    }

    fn with(mut self, change: impl FnOnce(&mut StaticSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("root").join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        write_old(&self.path(name), content);
    }

    /// One more root.
    fn root(mut self, name: &str, prefix: &str, files: &[(&str, &[u8])]) -> Self {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        for (file, content) in files {
            write_old(&path.join(file), content);
        }
        self.settings.roots.push(Root { path, prefix: prefix.to_owned() });
        self
    }

    fn handler(&self) -> StaticFiles {
        let folders = self.settings.roots.iter().map(|root| OwnedFd::from(fs::File::open(&root.path).unwrap()));
        StaticFiles::new(self.settings.clone(), folders.collect()).unwrap()
    }

    /// The answer of a new handler.
    async fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
        ask(&self.handler(), method, target, fields).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[]).await
    }
}

fn write_old(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
}

/// An outcome as a test compares it.
#[derive(Debug)]
struct Answer {
    /// 0 for a decline.
    status: u16,
    body: Vec<u8>,
    length: u64,
    is_file: bool,
    response: Option<Response>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.response.as_ref()?.fields.get(name)?).ok()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

const DECLINED: u16 = 0;

fn request(method: &str, target: &str, fields: &[(&str, &str)], prefix: &str, received: Instant) -> Option<Request> {
    let head = head(method, target, fields);
    let path = CanonicalPath::parse(&head.raw_path_bytes()).ok()?;
    let endpoint = Arc::new(Endpoint::new(None, None, Scheme::Http));
    Some(Request {
        head,
        path,
        body: RequestBody::Empty,
        endpoint,
        received,
        prefix_length: prefix.len(),
        timeout: None,
        interim: Interim::none(),
        notes: crate::http::Notes::default(),
    })
}

async fn ask(handler: &StaticFiles, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
    let prefix = if target.starts_with("/static") { "/static/" } else { "/" };
    let request = request(method, target, fields, prefix, Instant::now()).expect("the path is canonical");
    answer(handler.handle(request).await).await
}

/// The answer to a GET that comes `after` now.
async fn get_after(handler: &StaticFiles, target: &str, after: Duration) -> Answer {
    let request = request("GET", target, &[], "/", Instant::now() + after).expect("the path is canonical");
    answer(handler.handle(request).await).await
}

async fn answer(result: Result<Outcome, HandlerError>) -> Answer {
    let mut response = match result {
        Ok(Outcome::Response(response)) => response,
        Ok(Outcome::Decline(_) | Outcome::Redirect(_)) => {
            return Answer { status: DECLINED, body: Vec::new(), length: 0, is_file: false, response: None };
        }
        Err(error) => {
            let body = error.message.into_bytes();
            return Answer { status: error.status.code(), body, length: 0, is_file: false, response: None };
        }
    };
    let (body, length, is_file) = match &response.body {
        ResponseBody::Empty => (Vec::new(), 0, false),
        ResponseBody::Full(bytes) => (bytes.to_vec(), bytes.len() as u64, false),
        ResponseBody::LengthOnly(length) => (Vec::new(), *length, false),
        ResponseBody::Tunnel(_) => unreachable!("a file is no tunnel"),
        ResponseBody::File(part) => {
            let file = fs::File::from(part.file.try_clone().unwrap());
            let mut bytes = vec![0; part.length as usize];
            file.read_exact_at(&mut bytes, part.offset).unwrap();
            (bytes, part.length, part.memory.is_none())
        }
        ResponseBody::Stream(_) => {
            let ResponseBody::Stream(mut stream) = std::mem::replace(&mut response.body, ResponseBody::Empty) else {
                unreachable!()
            };
            let length = stream.length().unwrap();
            let mut bytes = Vec::new();
            while let Some(chunk) = std::future::poll_fn(|context| stream.as_mut().poll_chunk(context)).await {
                bytes.extend_from_slice(&chunk.unwrap());
            }
            (bytes, length, true)
        }
    };
    Answer { status: response.status.code(), body, length, is_file, response: Some(response) }
}

/// Reads everything, for comparing with what was sent.
fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs::File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}
