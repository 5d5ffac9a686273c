//! Environments of requests: from names and values with NULs between them to a dictionary.
//!
//! Requests are alike: the same names in the same order, and most values as in the request before. The last request
//! of each *shape* (sequence of names) stands ready as a dictionary; of a new one only the values that differ are
//! decoded and stored, then the dictionary is copied for the application, which may do with it what it likes.

use alloc::vec::Vec;

use crate::python::{self as py, Own, Py, Result, done};

/// Shapes that are remembered. A browser sends three or four, a site sees some browsers.
const SHAPES: usize = 16;

/// Makes environments, for one thread.
pub struct Maker {
    /// What stands in every environment.
    template: Own,
    shapes: [Option<Shape>; SHAPES],
    /// Where names and values by turns begin and end in the block that is being read.
    fields: Vec<(u32, u32)>,
    /// Where heads of answers are put together.
    pub scratch: Vec<u8>,
}

struct Shape {
    /// The last request's names and values.
    block: Own,
    fields: Vec<(u32, u32)>,
    names: Vec<Own>,
    prototype: Own,
}

impl Maker {
    /// From names and values by turns, a list.
    pub fn new(constants: Py) -> Result<Self> {
        // SAFETY: the list is alive; keys are `str`.
        unsafe {
            let template = Own::take(py::PyDict_New())?;
            for index in (0..py::PyList_Size(constants) - 1).step_by(2) {
                let (name, value) = (py::PyList_GetItem(constants, index), py::PyList_GetItem(constants, index + 1));
                done(py::PyDict_SetItem(template.py(), name, value))?;
            }
            Ok(Self { template, shapes: [const { None }; SHAPES], fields: Vec::new(), scratch: Vec::new() })
        }
    }

    /// The environment of this block, which is exactly `bytes`; `None` where it does not hold pairs.
    pub fn make(&mut self, block: Py) -> Result<Option<Own>> {
        // SAFETY: the caller has checked its type and holds it.
        let text: &[u8] = unsafe { py::bytes(block) };
        let Some(hash) = split(text, &mut self.fields) else { return Ok(None) };
        let place = &mut self.shapes[hash % SHAPES];
        // Taken out: what fails half-way through an update must never be used again.
        if let Some(mut shape) = place.take_if(|shape| shape.fits(text, &self.fields)) {
            shape.update(block, text, &mut self.fields)?;
            // SAFETY: a dictionary.
            let environ = unsafe { Own::take(py::PyDict_Copy(shape.prototype.py()))? };
            *place = Some(shape);
            return Ok(Some(environ));
        }
        let made = Shape::new(&self.template, block, text, core::mem::take(&mut self.fields))?;
        // SAFETY: dictionaries.
        let (environ, is_plain) = unsafe {
            let all = py::PyDict_Size(self.template.py()) + made.names.len() as isize;
            (Own::take(py::PyDict_Copy(made.prototype.py()))?, py::PyDict_Size(made.prototype.py()) == all)
        };
        // A name that comes twice has one place for two values: never updated in place.
        *place = is_plain.then_some(made);
        Ok(Some(environ))
    }
}

impl Shape {
    fn new(template: &Own, block: Py, text: &[u8], fields: Vec<(u32, u32)>) -> Result<Self> {
        // SAFETY: `block` holds `text`.
        let (prototype, block) = unsafe { (Own::take(py::PyDict_Copy(template.py()))?, Own::share(block)) };
        let mut names = Vec::with_capacity(fields.len() / 2);
        for pair in fields.chunks_exact(2) {
            let (name, value) = (decode(text, pair[0])?, decode(text, pair[1])?);
            // SAFETY: a dictionary and strings.
            done(unsafe { py::PyDict_SetItem(prototype.py(), name.py(), value.py()) })?;
            names.push(name);
        }
        Ok(Self { block, fields, names, prototype })
    }

    fn fits(&self, text: &[u8], fields: &[(u32, u32)]) -> bool {
        // SAFETY: checked when it was taken, and held.
        let ours: &[u8] = unsafe { py::bytes(self.block.py()) };
        self.fields.len() == fields.len()
            && self.fields.iter().zip(fields).step_by(2).all(|(&old, &new)| slice(ours, old) == slice(text, new))
    }

    fn update(&mut self, block: Py, text: &[u8], fields: &mut Vec<(u32, u32)>) -> Result<()> {
        // SAFETY: as above.
        let ours: &[u8] = unsafe { py::bytes(self.block.py()) };
        let values = self.fields.iter().zip(fields.iter()).skip(1).step_by(2);
        for ((&old, &new), name) in values.zip(&self.names) {
            if slice(ours, old) != slice(text, new) {
                let value = decode(text, new)?;
                // SAFETY: a dictionary and strings. What is replaced is a string as well: no code runs.
                done(unsafe { py::PyDict_SetItem(self.prototype.py(), name.py(), value.py()) })?;
            }
        }
        core::mem::swap(&mut self.fields, fields);
        // SAFETY: the caller holds it.
        self.block = unsafe { Own::share(block) };
        Ok(())
    }
}

fn slice(text: &[u8], (begin, end): (u32, u32)) -> &[u8] {
    text.get(begin as usize..end as usize).unwrap_or_default()
}

fn decode(text: &[u8], field: (u32, u32)) -> Result<Own> {
    let text = slice(text, field);
    // SAFETY: the bytes are copied.
    unsafe { Own::take(py::PyUnicode_DecodeLatin1(text.as_ptr(), text.len() as isize, core::ptr::null())) }
}

/// Finds the fields, each ended by a NUL, and a hash of those at even places; `None` for an odd number, or for what
/// does not end with a NUL.
fn split(text: &[u8], fields: &mut Vec<(u32, u32)>) -> Option<usize> {
    fields.clear();
    let mut begin = 0;
    let mut hash: u64 = 0;
    let mut is_name = true;
    while begin < text.len() {
        let end = begin + find_nul(&text[begin..])?;
        fields.push((begin as u32, end as u32));
        if is_name {
            // Names of one length that end alike are told apart when they are compared.
            let tail = text[begin..end].last_chunk::<4>().map_or(0, |tail| u32::from_le_bytes(*tail));
            hash = (hash ^ u64::from(tail) ^ ((end - begin) as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        is_name = !is_name;
        begin = end + 1;
    }
    is_name.then_some(hash as usize)
}

/// The place of the first NUL, eight bytes at a time.
fn find_nul(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let mut at = 0;
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let zero = word.wrapping_sub(ONES) & !word & (ONES << 7);
        if zero != 0 {
            return Some(at + zero.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    text[at..].iter().position(|&byte| byte == 0).map(|place| at + place)
}
