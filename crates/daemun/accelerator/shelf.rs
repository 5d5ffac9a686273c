//! Pieces of answers on the lane's shelf: the shim's `Lane.send_laid`, where there is room and nothing waits.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::lane::{HEADER, Lane, SLOTS, bytes_of};
use crate::python::{self as py, Own, Py, Raised, Result, done};
use crate::{give, raise, wire};

// As in `daemun-protocol/src/frame.rs`.
const LAID: u8 = 18;
const BLOCK: usize = 4096;
const BLOCKS: usize = 128;

/// `Lane.send_laid(request, piece)`: false where it has to go another way.
pub unsafe extern "C" fn send_laid(object: Py, arguments: *const Py, count: isize, keywords: Py) -> Py {
    // SAFETY: our own object and this many arguments.
    unsafe {
        if count != 2 || !keywords.is_null() {
            raise(c"send_laid takes two arguments");
            return null_mut();
        }
        match send(object.cast(), *arguments, *arguments.add(1)) {
            Ok(is_sent) => {
                let word = if is_sent { &raw mut py::_Py_TrueStruct } else { &raw mut py::_Py_FalseStruct };
                give(Ok(Own::share(word)))
            }
            Err(Raised) => null_mut(),
        }
    }
}

/// # Safety
/// `lane` is alive, and so are the arguments.
unsafe fn send(lane: *mut Lane, request: Py, piece: Py) -> Result<bool> {
    // SAFETY: as promised by the caller; the piece is looked at first, and nothing here runs Python code before the frame
    // is whole.
    unsafe {
        if !py::is(piece, &raw const py::PyBytes_Type) {
            return Ok(false);
        }
        let bytes = py::bytes(piece);
        let Some(place) = lay(&*lane, bytes) else { return Ok(false) };
        let mut frame = [0; HEADER + 8];
        frame[..4].copy_from_slice(&8_u32.to_le_bytes());
        frame[4] = LAID;
        frame[5..9].copy_from_slice(&(py::PyLong_AsLong(request) as u32).to_le_bytes());
        frame[9..13].copy_from_slice(&(place as u32).to_le_bytes());
        frame[13..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        let frame = bytes_of(&frame)?;
        done(py::PyList_Append((*lane).out, frame.py()))?;
        wire::flush(lane)?;
    }
    Ok(true)
}

/// Copies a piece into free blocks in a row, the first ones; where that is.
fn lay(lane: &Lane, bytes: &[u8]) -> Option<usize> {
    let (page, shelf) = (lane.page.as_ref()?, lane.shelf.as_ref()?);
    let first = lane.page_start as usize + 2 * SLOTS;
    let wanted = bytes.len().div_ceil(BLOCK);
    if first + BLOCKS > page.length as usize || shelf.length as usize != BLOCK * BLOCKS {
        return None;
    }
    // SAFETY: within the mapping, which the buffer holds; the other side uses single bytes as well.
    let flag = |block: usize| unsafe { AtomicU8::from_ptr(page.data.add(first + block)) };
    let mut begin = 0;
    for block in 0..BLOCKS {
        if flag(block).load(Ordering::Acquire) != 0 {
            begin = block + 1;
        } else if block + 1 - begin >= wanted {
            (begin..=block).for_each(|taken| flag(taken).store(1, Ordering::Relaxed));
            // SAFETY: these blocks lie within the shelf, which the buffer holds, and nobody else writes to them until the
            // front has given them back.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), shelf.data.add(begin * BLOCK), bytes.len()) }
            return Some(begin * BLOCK);
        }
    }
    None
}
