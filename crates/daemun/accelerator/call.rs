//! One call of the application: environment in, answer out.

use alloc::boxed::Box;
use core::ptr::null_mut;

use crate::environ::Maker;
use crate::lane::{HEADER, HOLD, Lane, SLOTS, finish};
use crate::python::{self as py, Own, Py, Raised, Result, done};
use crate::start::{self, Start};
use crate::{names, shim, wire};

// As in `daemun-protocol/src/frame.rs`.
const ANSWER: u8 = 12;

/// As in the shim: a whole answer up to this size goes as one frame.
const PIECE: usize = 64 * 1024;

/// One call of the application.
pub struct Call {
    pub lane: *mut Lane,
    pub request: Py,
    pub block: Py,
    pub body: Py,
}

impl Call {
    /// Calls the application, or has the shim do it.
    pub fn run(&self, kind: Py) -> Result<()> {
        let names = names()?;
        let end = null_mut::<py::Object>();
        // SAFETY: the arguments of a running call are alive.
        unsafe {
            let in_frame = matches!(py::PyLong_AsLong(kind), 0..=1) && py::is(self.block, &raw const py::PyBytes_Type);
            let is_usual = in_frame && (*self.lane).page.is_some() && py::PySet_Size((*self.lane).cancelled) == 0;
            let environ = if is_usual { self.environ()? } else { None };
            let Some(environ) = environ else {
                let (lane, plain) = (self.lane.cast::<py::Object>(), shim()?.answer);
                let (request, block, body) = (self.request, self.block, self.body);
                Own::take(py::PyObject_CallFunctionObjArgs(plain, lane, request, block, kind, body, end))?;
                return Ok(());
            };
            let slot = py::PyLong_AsLong(self.request) as usize % SLOTS;
            if !(*self.lane).start(slot) {
                let lane = self.lane.cast::<py::Object>();
                Own::take(py::PyObject_CallMethodObjArgs(lane, names.skip, self.request, kind, self.body, end))?;
                return Ok(());
            }
            let input = Own::take(py::PyObject_CallFunctionObjArgs(shim()?.bytes_io, self.body, end))?;
            done(py::PyDict_SetItem(environ.py(), names.wsgi_input, input.py()))?;
            (*self.lane).set_current(null_mut());
            let (start, start_response) = start::begin(self.lane, self.request)?;
            (*self.lane).running = start.py().cast();
            (*self.lane).called = py::PyLong_AsLong(self.request) as isize;
            let application = (*self.lane).application;
            let result = py::PyObject_CallFunctionObjArgs(application, environ.py(), start_response.py(), end);
            let sent = Own::take(result).and_then(|result| self.send(&start, &result));
            let sent = sent.or_else(|Raised| self.fail(&start));
            (*self.lane).running = null_mut();
            (*self.lane).called = -1;
            if py::PySet_Size((*self.lane).cancelled) > 0 {
                let kept = Error::keep();
                done(py::PySet_Discard((*self.lane).cancelled, self.request))?;
                kept.restore();
            }
            sent?;
            if (*self.lane).interrupted >= 0 {
                let lane = self.lane.cast::<py::Object>();
                Own::take(py::PyObject_CallMethodObjArgs(lane, names.settle_interrupt, end))?;
            }
        }
        // SAFETY: as above.
        unsafe { finish(self.lane) }
    }

    fn environ(&self) -> Result<Option<Own>> {
        // SAFETY: the interpreter holds the lane for this call. No Python code runs meanwhile that could see it change.
        unsafe {
            let maker = match &mut (*self.lane).maker {
                Some(maker) => maker,
                none => none.insert(Box::new(Maker::new((*self.lane).environ)?)),
            };
            maker.make(self.block)
        }
    }

    /// A child that the application forked must not come back as a second worker.
    fn end_forked_child(&self) -> Result<()> {
        let names = names()?;
        // SAFETY: the lane holds its worker, and is held for this call.
        unsafe {
            let worker = (*self.lane).worker;
            let forked = Own::take(py::PyObject_GetAttr(worker, names.forked))?;
            if forked.py() != &raw mut py::_Py_FalseStruct {
                let end = null_mut::<py::Object>();
                Own::take(py::PyObject_CallMethodObjArgs(worker, names.end_forked_child, end))?;
            }
        }
        Ok(())
    }

    fn send(&self, start: &Own, result: &Own) -> Result<()> {
        self.end_forked_child()?;
        let names = names()?;
        // SAFETY: `start` is ours; the result is held by the caller. Its parts are, too: nothing here runs Python code.
        unsafe {
            let state = &mut *start.py().cast::<Start>();
            let is_list = py::is(result.py(), &raw const py::PyList_Type);
            if is_list || py::is(result.py(), &raw const py::PyTuple_Type) {
                if state.exchange.is_null() && !state.head.is_null() && self.send_parts(state, result.py(), is_list)? {
                    return Ok(());
                }
                return call_one(state.exchange()?, names.send_list, result.py());
            }
            if (*result.py()).kind == shim()?.file_wrapper {
                return call_one(state.exchange()?, names.send_iterable, result.py());
            }
        }
        let sent = self.send_pieces(start, result);
        self.close(result, sent)
    }

    /// A list or tuple whose items are `bytes` and that is no longer than a frame; false where it is another.
    ///
    /// # Safety
    /// `result` is a list or a tuple, as `is_list` says, and `state` has a head.
    unsafe fn send_parts(&self, state: &mut Start, result: Py, is_list: bool) -> Result<bool> {
        // SAFETY: as promised by the caller; the items are looked at before anything could change the list.
        unsafe {
            let count = if is_list { py::PyList_Size(result) } else { py::PyTuple_Size(result) };
            let item =
                |index| if is_list { py::PyList_GetItem(result, index) } else { py::PyTuple_GetItem(result, index) };
            let mut length = 0;
            for index in 0..count {
                if !py::is(item(index), &raw const py::PyBytes_Type) {
                    return Ok(false);
                }
                length += py::PyBytes_Size(item(index)) as usize;
                if length > PIECE {
                    return Ok(false);
                }
            }
            self.put(state, length, (0..count).map(item))?;
        }
        Ok(true)
    }

    /// Appends a whole answer.
    ///
    /// # Safety
    /// `parts` are `bytes` of `length` in all, and `state` has a head.
    unsafe fn put(&self, state: &mut Start, length: usize, parts: impl Iterator<Item = Py>) -> Result<()> {
        // SAFETY: as promised by the caller; the new object is written before anybody else sees it.
        unsafe {
            let head: &[u8] = py::bytes(state.head);
            let payload = 8 + head.len() + length;
            let frame = Own::take(py::PyBytes_FromStringAndSize(core::ptr::null(), (HEADER + payload) as isize))?;
            let spent = ((py::clock() - (*self.lane).since) * 1e6) as u32;
            let mut place = Place(py::PyBytes_AsString(frame.py()));
            place.put(&(payload as u32).to_le_bytes());
            place.put(&[ANSWER]);
            place.put(&(py::PyLong_AsLong(self.request) as u32).to_le_bytes());
            place.put(&spent.to_le_bytes());
            place.put(&(head.len() as u32).to_le_bytes());
            place.put(head);
            for part in parts {
                place.put(py::bytes(part));
            }
            done(py::PyList_Append((*self.lane).out, frame.py()))?;
        }
        state.ended = true;
        Ok(())
    }

    /// Any other iterable: if its first piece is all that the head has said, it is a whole answer; otherwise the shim
    /// sends the pieces.
    fn send_pieces(&self, start: &Own, result: &Own) -> Result<()> {
        let names = names()?;
        // SAFETY: `start` is ours, and every piece is held while it is used.
        unsafe {
            let state = start.py().cast::<Start>();
            let pieces = Own::take(py::PyObject_GetIter(result.py()))?;
            while let Some(piece) = next(&pieces)? {
                let is_bytes = py::is(piece.py(), &raw const py::PyBytes_Type);
                if is_bytes && ((*state).ended || py::PyBytes_Size(piece.py()) == 0) {
                    continue;
                }
                let is_head_here = !(*state).head.is_null() && (*state).exchange.is_null();
                if is_bytes && is_head_here && py::PyBytes_Size(piece.py()) == (*state).declared {
                    let length = (*state).declared as usize;
                    if length <= PIECE {
                        self.put(&mut *state, length, core::iter::once(piece.py()))?;
                        // What the iterable does behind it may take long; with nothing to come it has nothing to wait for.
                        let is_last = py::PyObject_Size((*self.lane).pending) == 0;
                        if is_last || ((*self.lane).slowest >= HOLD && (*self.lane).hold <= HOLD) {
                            wire::flush(self.lane)?;
                        }
                        continue;
                    }
                }
                let first = Own::take(py::PyTuple_New(1))?;
                done(py::PyTuple_SetItem(first.py(), 0, piece.give()))?;
                let end = null_mut::<py::Object>();
                let chain = shim()?.chain;
                let all = Own::take(py::PyObject_CallFunctionObjArgs(chain, first.py(), pieces.py(), end))?;
                return call_one((*state).exchange()?, names.send_pieces, all.py());
            }
            self.end_forked_child()?;
            if (*state).ended {
                return Ok(());
            }
            let nothing = Own::take(py::PyTuple_New(0))?;
            call_one((*state).exchange()?, names.send_pieces, nothing.py())
        }
    }

    /// Calls the result's `close`, whatever happened before.
    fn close(&self, result: &Own, sent: Result<()>) -> Result<()> {
        let kept = if sent.is_err() { Some(Error::keep()) } else { None };
        // SAFETY: the result is held by the caller.
        unsafe {
            match Own::take(py::PyObject_GetAttr(result.py(), names()?.close)) {
                Ok(close) => {
                    Own::take(py::PyObject_CallFunctionObjArgs(close.py(), null_mut::<py::Object>()))?;
                }
                Err(Raised) if py::PyErr_ExceptionMatches(py::PyExc_AttributeError) == 0 => return Err(Raised),
                Err(Raised) => py::PyErr_Clear(),
            }
        }
        if let Some(kept) = kept {
            kept.restore();
        }
        sent
    }

    /// Has the shim deal with what was raised.
    fn fail(&self, start: &Own) -> Result<()> {
        let error = Error::keep().normal();
        // SAFETY: `start` is ours; all objects are alive.
        unsafe {
            let exchange = (*start.py().cast::<Start>()).exchange()?;
            let (lane, end) = (self.lane.cast::<py::Object>(), null_mut::<py::Object>());
            let fail = names()?.fail;
            Own::take(py::PyObject_CallMethodObjArgs(lane, fail, exchange, self.block, error.py(), end))?;
        }
        Ok(())
    }
}

/// An exception that was set.
struct Error([Py; 3]);

impl Error {
    fn keep() -> Self {
        let mut parts = [null_mut(); 3];
        let [kind, value, trace] = &mut parts;
        // SAFETY: three places of ours.
        unsafe { py::PyErr_Fetch(kind, value, trace) };
        Self(parts)
    }

    fn restore(mut self) {
        let [kind, value, trace] = core::mem::replace(&mut self.0, [null_mut(); 3]);
        // SAFETY: takes the references over.
        unsafe { py::PyErr_Restore(kind, value, trace) }
    }

    /// The exception object, with its traceback.
    fn normal(mut self) -> Own {
        let [kind, value, trace] = &mut self.0;
        // SAFETY: the references are ours; that to the value is given on.
        unsafe {
            py::PyErr_NormalizeException(kind, value, trace);
            if !trace.is_null() {
                py::PyException_SetTraceback(*value, *trace);
            }
            let value = core::mem::replace(value, null_mut());
            Own::take(value).unwrap_or_else(|Raised| Own::share(&raw mut py::_Py_NoneStruct))
        }
    }
}

impl Drop for Error {
    fn drop(&mut self) {
        for part in self.0 {
            // SAFETY: the references are ours; NULL is allowed.
            unsafe { py::Py_DecRef(part) }
        }
    }
}

/// Where the next byte goes.
struct Place(*mut u8);

impl Place {
    /// # Safety
    /// There is room for it.
    unsafe fn put(&mut self, bytes: &[u8]) {
        // SAFETY: as promised by the caller.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0, bytes.len());
            self.0 = self.0.add(bytes.len());
        }
    }
}

fn next(iterator: &Own) -> Result<Option<Own>> {
    // SAFETY: an iterator.
    unsafe {
        match Own::take(py::PyIter_Next(iterator.py())) {
            Ok(item) => Ok(Some(item)),
            Err(Raised) if py::PyErr_Occurred().is_null() => Ok(None),
            Err(Raised) => Err(Raised),
        }
    }
}

/// # Safety
/// All objects are alive.
unsafe fn call_one(object: Py, method: Py, argument: Py) -> Result<()> {
    // SAFETY: as promised by the caller.
    unsafe { Own::take(py::PyObject_CallMethodObjArgs(object, method, argument, null_mut::<py::Object>()))? };
    Ok(())
}
