//! Heads of answers: what an application gave to `start_response`, checked and joined, where it is as usual.

use alloc::vec::Vec;

use crate::python::{self as py, Own, Py, Result};

/// A head as the front wants it.
pub struct Head {
    pub bytes: Own,
    /// What `Content-Length` says.
    pub declared: Option<usize>,
}

/// Encodes it; `None` where anything is unusual, so that the plain code must judge it (and say what is wrong).
pub fn encode(status: Py, headers: Py, scratch: &mut Vec<u8>) -> Result<Option<Head>> {
    scratch.clear();
    let mut declared = None;
    if !append(status, headers, scratch, &mut declared) {
        return Ok(None);
    }
    // SAFETY: the bytes are copied.
    let bytes = unsafe { Own::take(py::PyBytes_FromStringAndSize(scratch.as_ptr(), scratch.len() as isize))? };
    Ok(Some(Head { bytes, declared }))
}

fn append(status: Py, headers: Py, out: &mut Vec<u8>, declared: &mut Option<usize>) -> bool {
    // SAFETY: both are arguments of a call that is running; items of a list and a tuple live as long as those do, and
    // nothing here runs Python code that could change them.
    unsafe {
        if !py::is(headers, &raw const py::PyList_Type) {
            return false;
        }
        match text(status) {
            Some(status) if is_status(status) => out.extend_from_slice(status),
            _ => return false,
        }
        for index in 0..py::PyList_Size(headers) {
            let pair = py::PyList_GetItem(headers, index);
            if !py::is(pair, &raw const py::PyTuple_Type) || py::PyTuple_Size(pair) != 2 {
                return false;
            }
            let (name, value) = (text(py::PyTuple_GetItem(pair, 0)), text(py::PyTuple_GetItem(pair, 1)));
            let (Some(name), Some(value)) = (name, value) else { return false };
            if !is_name(name) || is_hop_by_hop(name) || !value.iter().copied().all(may_stand) {
                return false;
            }
            if name.eq_ignore_ascii_case(b"content-length") {
                match number(value) {
                    Some(length) if declared.is_none() => *declared = Some(length),
                    _ => return false,
                }
            }
            out.push(0);
            out.extend_from_slice(name);
            out.push(0);
            out.extend_from_slice(value);
        }
    }
    true
}

/// # Safety
/// `object` is alive, and stays so as long as the slice is used.
unsafe fn text<'a>(object: Py) -> Option<&'a [u8]> {
    // SAFETY: as promised by the caller; the type is looked at first.
    unsafe { if py::is(object, &raw const py::PyUnicode_Type) { py::ascii(object) } else { None } }
}

/// `200 OK`: what the plain code's pattern takes.
fn is_status(status: &[u8]) -> bool {
    matches!(status, [b'2'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ', rest @ ..] if rest.iter().copied().all(may_stand))
}

/// No control character but the tab (RFC 9110, section 5.5).
fn may_stand(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// A token (RFC 9110, section 5.6.2).
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| TOKEN[byte as usize])
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric()
            || matches!(
                c,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~' | b'-'
            );
        byte += 1;
    }
    table
};

fn is_hop_by_hop(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 8] = [
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ];
    NAMES.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn number(value: &[u8]) -> Option<usize> {
    if value.is_empty() || value.len() > 15 {
        return None;
    }
    value.iter().try_fold(0_usize, |number, &byte| byte.is_ascii_digit().then(|| number * 10 + (byte - b'0') as usize))
}
