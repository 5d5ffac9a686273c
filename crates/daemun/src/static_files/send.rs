//! Files that an application has the server send: `X-Sendfile` and `X-Accel-Redirect`.
//!
//! The application decides who may have a file and says where it lies; the server sends it, with ranges, preconditions
//! and `sendfile`, below folders that were named for this and cannot be left. The way of an answer through here:
//!
//! 1. Without one of the two fields it passes untouched; where it is no success, only the fields go.
//! 2. *Name*: `X-Accel-Redirect` holds a URL path, percent-encoded as nginx reads it, below one of the prefixes;
//!    `X-Sendfile` a file's path, taken literally, below one of the folders.
//! 3. *File*: looked for and sent as on a static route.
//! 4. *Fields*: the application's stay but those that are about other bytes than are sent.
//!
//! A path never reaches the client: what leads nowhere is told in the log.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::settings::{Root, StaticSettings};
use super::{RootsError, StaticFiles, answer};
use crate::handler::{Answering, Fault, Handler, HandlerError, Outcome};
use crate::http::{Fields, Interim, Notes, Request, RequestBody, Response, Status};

/// What an application's answer may name a file by.
const WISHES: [(&str, Wish); 2] = [("X-Accel-Redirect", Wish::Url), ("X-Sendfile", Wish::Path)];

/// Fields of the application's that say something of the body that it did not send, or that were meant for a server in
/// front of it.
const DROPPED: [&str; 11] = [
    "X-Accel-Redirect",
    "X-Sendfile",
    "X-Accel-Buffering",
    "X-Accel-Charset",
    "X-Accel-Expires",
    "X-Accel-Limit-Rate",
    "Accept-Ranges",
    "Content-Encoding",
    "Content-Range",
    "ETag",
    "Last-Modified",
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wish {
    Url,
    Path,
}

/// The folders that may be sent from.
#[derive(Debug)]
pub struct SendRoots(Vec<SendRoot>);

#[derive(Debug)]
struct SendRoot {
    prefix: String,
    path: PathBuf,
    files: StaticFiles,
}

/// Sends files for another handler.
pub struct SendFiles {
    handler: Arc<dyn Handler>,
    roots: Arc<SendRoots>,
}

// === impl SendRoots ===

impl SendRoots {
    /// Folders with the URL prefix that each stands for, which begins and ends with a slash, opened in this order.
    pub fn new(roots: &[(String, PathBuf)], folders: Vec<OwnedFd>) -> Result<Self, RootsError> {
        if roots.len() != folders.len() {
            return Err(RootsError { roots: roots.len(), folders: folders.len() });
        }
        let roots = roots.iter().zip(folders).map(|((prefix, path), folder)| {
            let settings = StaticSettings {
                roots: vec![Root { path: path.clone(), prefix: String::new() }],
                cache: true,
                ..StaticSettings::default()
            };
            let files = StaticFiles::new(settings, vec![folder])?;
            Ok(SendRoot { prefix: prefix.clone(), path: path.clone(), files })
        });
        let mut roots = roots.collect::<Result<Vec<_>, _>>()?;
        // The longest first: it is the most specific.
        roots.sort_by_key(|root| std::cmp::Reverse(root.prefix.len()));
        Ok(Self(roots))
    }

    /// The root and the request for the file in it.
    fn find(&self, wish: Wish, value: &[u8], request: &Request) -> Result<(&SendRoot, Request), &'static str> {
        const NO_PATH: &str = "that is no path";
        match wish {
            Wish::Url => {
                let (path, query) = match memchr::memchr(b'?', value) {
                    Some(mark) => (&value[..mark], Some(&value[mark + 1..])),
                    None => (value, None),
                };
                let mut request = request.redirected(path, query).map_err(|_| NO_PATH)?;
                let below = |root: &&SendRoot| request.path.as_bytes().starts_with(root.prefix.as_bytes());
                let root = self.0.iter().find(below).ok_or("no prefix of `sendfile` stands before it")?;
                request.prefix_length = root.prefix.len();
                Ok((root, request))
            }
            Wish::Path => {
                let roots = self.0.iter().filter_map(|root| Some((root, below(&root.path, value)?)));
                let (root, name) =
                    roots.min_by_key(|(_, name)| name.len()).ok_or("no folder of `sendfile` holds it")?;
                let mut path = b"/".to_vec();
                answer::encode(name, b"/:@", &mut path);
                let mut request = request.redirected(&path, None).map_err(|_| NO_PATH)?;
                request.prefix_length = 1;
                Ok((root, request))
            }
        }
    }
}

/// What stands behind `folder` in `path`.
fn below<'a>(folder: &Path, path: &'a [u8]) -> Option<&'a [u8]> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    path.strip_prefix(folder)?.strip_prefix(b"/")
}

// === impl SendFiles ===

impl SendFiles {
    /// `handler`, whose answers may name files below these folders.
    pub fn new(handler: Arc<dyn Handler>, roots: Arc<SendRoots>) -> Self {
        Self { handler, roots }
    }

    /// Steps 1 to 4.
    async fn carry_out(&self, request: Request, mut response: Response) -> Result<Response, HandlerError> {
        let named = WISHES.iter().find_map(|&(name, wish)| Some((name, wish, response.fields.get(name)?.to_vec())));
        let Some((name, wish, value)) = named else { return Ok(response) };
        if !matches!(response.status.code(), 200..=299) {
            WISHES.iter().for_each(|(name, _)| response.fields.remove(name));
            return Ok(response);
        }
        let told = value.escape_ascii().to_string();
        let failed = |status, why: &str| {
            HandlerError::new(status, Fault::Worker, format!("{name}: `{told}` cannot be sent: {why}"))
        };
        let (root, request) =
            self.roots.find(wish, &value, &request).map_err(|why| failed(Status::INTERNAL_SERVER_ERROR, why))?;
        match root.files.handle(request).await? {
            Outcome::Response(file) if matches!(file.status.code(), 200 | 206 | 304 | 412 | 416) => {
                Ok(merge(response, file))
            }
            _ => Err(failed(Status::NOT_FOUND, &format!("{} has no such file that may be sent", root.path.display()))),
        }
    }
}

impl Handler for SendFiles {
    fn handle(&self, request: Request) -> Answering<'_> {
        let again = Request {
            head: request.head.clone(),
            path: request.path.clone(),
            prefix_length: request.prefix_length,
            body: RequestBody::Empty,
            endpoint: Arc::clone(&request.endpoint),
            received: request.received,
            timeout: None,
            interim: Interim::none(),
            notes: Notes { id: request.notes.id.clone(), ..Notes::default() },
        };
        Box::pin(async move {
            match self.handler.handle(request).await? {
                Outcome::Response(response) => self.carry_out(again, response).await.map(Outcome::Response),
                other => Ok(other),
            }
        })
    }

    fn may_decline(&self) -> bool {
        self.handler.may_decline()
    }
}

/// The file's answer with the application's fields. Where both have one, the application's counts, but for those of a
/// body that is not the file.
fn merge(asked: Response, file: Response) -> Response {
    let is_file = matches!(file.status.code(), 200 | 206);
    let is_multipart = file.fields.get("Content-Type").is_some_and(|kind| kind.starts_with(b"multipart/byteranges"));
    let mut fields = Fields::new();
    for field in asked.fields.iter() {
        let name = String::from_utf8_lossy(field.name());
        let of_content = name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("content-"));
        let is_type = name.eq_ignore_ascii_case("content-type");
        let is_policy = name.eq_ignore_ascii_case("content-security-policy");
        let is_dropped = DROPPED.iter().any(|dropped| name.eq_ignore_ascii_case(dropped))
            // An empty type is how an application leaves it to the server.
            || (is_type && (field.value().is_empty() || is_multipart))
            || (of_content && !is_policy && !is_file);
        if !is_dropped {
            fields.push(Bytes::copy_from_slice(field.name()), Bytes::copy_from_slice(field.value()));
        }
    }
    for field in file.fields.iter() {
        let name = String::from_utf8_lossy(field.name());
        if fields.get(&name).is_none() {
            fields.push(Bytes::copy_from_slice(field.name()), Bytes::copy_from_slice(field.value()));
        }
    }
    Response { status: file.status, reason: None, fields, body: file.body, timing: asked.timing }
}
