//! The variables of a request for a server behind FastCGI, SCGI or uwsgi: those of CGI, those that PHP wants besides,
//! and what the route says.

use std::os::unix::ffi::OsStrExt;

use daemun_protocol::fastcgi::Beginning;
use daemun_protocol::pairs::pairs;

use super::script::Aim;
use super::settings::ScriptSettings;
use crate::gateway::{Script, TrustedProxies, Variables, decode, of_name, write_script};
use crate::http::Request;

/// Bytes that the variables of a browser's request take.
const USUAL: usize = 2048;

/// What the name of a field's variable begins with.
const PREFIX: &[u8] = b"HTTP_";

/// Names and values, each ended by a NUL. No name stands there twice, or servers would disagree on it. The body has
/// `length` bytes.
pub(super) fn write(
    request: &Request,
    aim: &Aim,
    params: &[(String, String)],
    length: u64,
    trusted: &TrustedProxies,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL);
    for part in params.iter().flat_map(|(name, value)| [name, value]) {
        out.extend_from_slice(part.as_bytes());
        out.push(0);
    }
    tell(&mut out, request, aim, length, trusted);
    if params.is_empty() { out } else { without_repeats(&out, params) }
}

/// The same as a FastCGI request begins with them.
pub(super) fn begin(
    request: &Request,
    aim: &Aim,
    params: &[(String, String)],
    length: u64,
    trusted: &TrustedProxies,
) -> Beginning {
    let mut out = Told { beginning: Beginning::with_capacity(USUAL), params };
    for (name, value) in params {
        out.beginning.put(name.as_bytes(), value.as_bytes());
    }
    tell(&mut out, request, aim, length, trusted);
    out.beginning
}

/// What is said of a request to a FastCGI server, but for what its route says instead.
struct Told<'a> {
    beginning: Beginning,
    params: &'a [(String, String)],
}

impl Variables for Told<'_> {
    fn variable<const LENGTH: usize>(&mut self, name: &[u8; LENGTH], value: &[u8]) {
        let name = &name[..LENGTH - 1];
        if !self.params.iter().any(|(other, _)| other.as_bytes() == name) {
            self.beginning.put(name, value);
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        let is_said = |other: &str| {
            let rest = other.as_bytes().strip_prefix(PREFIX);
            rest.is_some_and(|rest| name.iter().copied().map(of_name).eq(rest.iter().copied()))
        };
        if !self.params.iter().any(|(other, _)| is_said(other)) {
            self.beginning.put_made(PREFIX, name, of_name, value);
        }
    }
}

fn tell(out: &mut impl Variables, request: &Request, aim: &Aim, length: u64, trusted: &TrustedProxies) {
    let decoded;
    let (name, path_info) = if let Aim::Script(aimed) = aim {
        let root = aimed.root.as_os_str().as_bytes();
        out.variable(b"SCRIPT_FILENAME\0", aimed.filename.as_os_str().as_bytes());
        out.variable(b"DOCUMENT_ROOT\0", root);
        if aimed.path_info.is_empty() {
            out.variable(b"DOCUMENT_URI\0", &aimed.name);
        } else {
            out.variable(b"DOCUMENT_URI\0", &[&aimed.name[..], &aimed.path_info].concat());
            out.variable(b"PATH_TRANSLATED\0", &[root, &aimed.path_info].concat());
        }
        // PHP refuses to run without it where it was built to: nothing else tells it that a server asks.
        out.variable(b"REDIRECT_STATUS\0", b"200");
        (&aimed.name[..], &aimed.path_info[..])
    } else {
        let raw = request.head.raw_path();
        decoded = decode(raw).unwrap_or_else(|| raw.to_vec());
        out.variable(b"DOCUMENT_URI\0", request.path.as_bytes());
        if decoded.is_empty() {
            // Without it some would take `SCRIPT_NAME` for the path.
            out.variable(b"PATH_INFO\0", b"");
        }
        (&request.notes.script_name[..], &decoded[..])
    };
    // Variables are no environment that others of the same user could read: credentials may stand there.
    let script = Script { name, path_info, authorization: true };
    write_script(out, request, length, trusted, &script);
    if length == 0 && request.head.field("content-length").is_none() {
        out.variable(b"CONTENT_LENGTH\0", b"");
    }
    if request.head.field("content-type").is_none() {
        out.variable(b"CONTENT_TYPE\0", b"");
    }
}

/// What `daemun explain` shows of a request to such a server: each name and its value.
pub fn describe(
    request: &Request,
    aim: &Aim,
    settings: &ScriptSettings,
    trusted: &TrustedProxies,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let length = request.body.length().unwrap_or_default();
    let text = write(request, aim, &settings.params, length, trusted);
    pairs(&text).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// What the route says stands for what the request says.
fn without_repeats(text: &[u8], params: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for (index, (name, value)) in pairs(text).enumerate() {
        if index < params.len() || !params.iter().any(|(other, _)| other.as_bytes() == name) {
            for part in [name, value] {
                out.extend_from_slice(part);
                out.push(0);
            }
        }
    }
    out
}
