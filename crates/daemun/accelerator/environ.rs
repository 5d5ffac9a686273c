//! Environments of requests: from names and values with NULs between them to a dictionary.
//!
//! Requests are alike: the same names in the same order, and most values as in the request before. The last request
//! of each *shape* (sequence of names) stands ready as a dictionary; a new one is compared with it, pair by pair, only
//! the values that differ are decoded and stored, then the dictionary is copied for the application, which may do with it
//! what it likes.

use alloc::vec::Vec;

use crate::python::{self as py, Own, Py, Result, done};

/// Shapes that are remembered. A browser sends three or four, a site sees some browsers.
const SHAPES: usize = 16;

/// Makes environments, for one thread.
pub struct Maker {
    /// What stands in every environment.
    template: Own,
    shapes: [Option<Shape>; SHAPES],
    /// The shape of the last request.
    last: usize,
    /// Where names and values by turns begin and end in the block that is being read.
    fields: Vec<(u32, u32)>,
    /// The values of the block that is being read that differ from its shape's.
    changes: Vec<Change>,
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

/// A value that differs: of which name, and where it begins and ends.
struct Change {
    name: usize,
    value: (u32, u32),
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
            let (fields, changes, scratch) = (Vec::new(), Vec::new(), Vec::new());
            Ok(Self { template, shapes: [const { None }; SHAPES], last: 0, fields, changes, scratch })
        }
    }

    /// The environment of this block, which is exactly `bytes`; `None` where it does not hold pairs.
    pub fn make(&mut self, block: Py) -> Result<Option<Own>> {
        // SAFETY: the caller has checked its type and holds it.
        let text: &[u8] = unsafe { py::bytes(block) };
        if let Some(environ) = self.make_alike(self.last, block, text)? {
            return Ok(Some(environ));
        }
        let Some(hash) = split(text, &mut self.fields) else { return Ok(None) };
        self.last = hash % SHAPES;
        if let Some(environ) = self.make_alike(self.last, block, text)? {
            return Ok(Some(environ));
        }
        let made = Shape::new(&self.template, block, text, core::mem::take(&mut self.fields))?;
        // SAFETY: dictionaries.
        let (environ, is_plain) = unsafe {
            let all = py::PyDict_Size(self.template.py()) + made.names.len() as isize;
            (Own::take(py::PyDict_Copy(made.prototype.py()))?, py::PyDict_Size(made.prototype.py()) == all)
        };
        // A name that comes twice has one place for two values: never updated in place.
        self.shapes[self.last] = is_plain.then_some(made);
        Ok(Some(environ))
    }

    /// The environment of a block of this shape; `None` where it is of another.
    fn make_alike(&mut self, place: usize, block: Py, text: &[u8]) -> Result<Option<Own>> {
        let (shape, changes) = (&mut self.shapes[place], &mut self.changes);
        // Taken out: what fails half-way through an update must never be used again.
        let Some(mut taken) = shape.take_if(|shape| shape.compare(text, changes).is_some()) else { return Ok(None) };
        taken.update(block, text, changes)?;
        // SAFETY: a dictionary.
        let environ = unsafe { Own::take(py::PyDict_Copy(taken.prototype.py()))? };
        *shape = Some(taken);
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

    /// Finds the values that differ; `None` where the names do. What is equal up to its NUL ends where ours does.
    fn compare(&self, text: &[u8], changes: &mut Vec<Change>) -> Option<()> {
        // SAFETY: checked when it was taken, and held.
        let ours: &[u8] = unsafe { py::bytes(self.block.py()) };
        changes.clear();
        let mut rest = text;
        for (name, pair) in self.fields.chunks_exact(2).enumerate() {
            let pair_here = ours.get(pair[0].0 as usize..=pair[1].1 as usize)?;
            if let Some(after) = rest.strip_prefix(pair_here) {
                rest = after;
                continue;
            }
            let value = rest.strip_prefix(ours.get(pair[0].0 as usize..=pair[0].1 as usize)?)?;
            let (begin, length) = (text.len() - value.len(), find_nul(value)?);
            changes.push(Change { name, value: (begin as u32, (begin + length) as u32) });
            rest = &value[length + 1..];
        }
        rest.is_empty().then_some(())
    }

    fn update(&mut self, block: Py, text: &[u8], changes: &[Change]) -> Result<()> {
        // SAFETY: the caller holds it.
        self.block = unsafe { Own::share(block) };
        // How much further behind everything now lies than it did; wraps around where that is less.
        let (mut moved, mut done_to) = (0_u32, 0);
        for change in changes {
            let value = decode(text, change.value)?;
            // SAFETY: a dictionary and strings. What is replaced is a string as well: no code runs.
            done(unsafe { py::PyDict_SetItem(self.prototype.py(), self.names[change.name].py(), value.py()) })?;
            let at = 2 * change.name + 1;
            shift(&mut self.fields[done_to..at], moved);
            moved = change.value.1.wrapping_sub(self.fields[at].1);
            self.fields[at] = change.value;
            done_to = at + 1;
        }
        shift(&mut self.fields[done_to..], moved);
        Ok(())
    }
}

fn shift(fields: &mut [(u32, u32)], by: u32) {
    if by != 0 {
        for (begin, end) in fields {
            (*begin, *end) = (begin.wrapping_add(by), end.wrapping_add(by));
        }
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
