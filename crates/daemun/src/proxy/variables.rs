//! The variables of a request for a server behind FastCGI, SCGI or uwsgi: those of CGI, those that PHP wants besides,
//! and what the route says.

use std::os::unix::ffi::OsStrExt;

use daemun_protocol::pairs::pairs;

use super::script::Aim;
use super::settings::ScriptSettings;
use crate::gateway::{Script, TrustedProxies, decode, write_script};
use crate::http::Request;

/// Bytes that the variables of a browser's request take.
const USUAL: usize = 2048;

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
    let mut variable = |name: &[u8], value: &[u8]| {
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    };
    for (name, value) in params {
        variable(name.as_bytes(), value.as_bytes());
    }
    let decoded;
    let (name, path_info) = if let Aim::Script(aimed) = aim {
        let root = aimed.root.as_os_str().as_bytes();
        variable(b"SCRIPT_FILENAME", aimed.filename.as_os_str().as_bytes());
        variable(b"DOCUMENT_ROOT", root);
        variable(b"DOCUMENT_URI", &[&aimed.name[..], &aimed.path_info].concat());
        // PHP refuses to run without it where it was built to: nothing else tells it that a server asks.
        variable(b"REDIRECT_STATUS", b"200");
        if !aimed.path_info.is_empty() {
            variable(b"PATH_TRANSLATED", &[root, &aimed.path_info].concat());
        }
        (&aimed.name[..], &aimed.path_info[..])
    } else {
        let raw = request.head.raw_path();
        decoded = decode(raw).unwrap_or_else(|| raw.to_vec());
        variable(b"DOCUMENT_URI", request.path.as_bytes());
        if decoded.is_empty() {
            // Without it some would take `SCRIPT_NAME` for the path.
            variable(b"PATH_INFO", b"");
        }
        (&request.notes.script_name[..], &decoded[..])
    };
    // Variables are no environment that others of the same user could read: credentials may stand there.
    let script = Script { name, path_info, authorization: true };
    write_script(&mut out, request, length, trusted, &script);
    if length == 0 && request.head.field("content-length").is_none() {
        out.extend_from_slice(b"CONTENT_LENGTH\0\0");
    }
    if request.head.field("content-type").is_none() {
        out.extend_from_slice(b"CONTENT_TYPE\0\0");
    }
    if params.is_empty() { out } else { without_repeats(&out, params) }
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
