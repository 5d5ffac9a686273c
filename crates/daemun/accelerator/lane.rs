//! The base of the shim's `Lane`: frames from the front taken apart, the application called, its answer framed.

use alloc::boxed::Box;
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::environ::Maker;
use crate::python::{self as py, GetSetDef, MemberDef, MethodDef, Own, Py, Raised, Result, Slot, done};
use crate::start::{self, Start};
use crate::{give, names, none, raise, shim};

// As in `daemun-protocol/src/frame.rs`.
const HEADER: usize = 9;
const REQUEST: u8 = 3;
const ANSWER: u8 = 12;
const INLINE: u8 = 1;
const SLOTS: usize = 64;
const MAX_PAYLOAD: usize = 1024 * 1024;

/// As in the shim: a whole answer up to this size goes as one frame.
const PIECE: usize = 64 * 1024;

/// As in the shim: how long finished answers may wait for others, in seconds.
const HOLD: f64 = 0.0005;

/// The fields that Python code sees are `Lane.__init__`'s: it fills them, and their meaning stands there.
#[repr(C)]
pub struct Lane {
    object: py::Object,
    worker: Py,
    application: Py,
    environ: Py,
    out: Py,
    current: Py,
    cancelled: Py,
    pending: Py,
    page_start: isize,
    since: f64,
    slowest: f64,
    held_since: f64,
    page: Option<Box<py::Buffer>>,
    /// Zeroed memory is `None` here, as it is above.
    pub maker: Option<Box<Maker>>,
}

const fn member(name: &'static core::ffi::CStr, kind: c_int, offset: usize) -> MemberDef {
    MemberDef { name: name.as_ptr(), kind, offset: offset as isize, flags: 0, doc: core::ptr::null() }
}

/// Makes the type.
pub fn make_type() -> Py {
    let members = [
        member(c"worker", py::T_OBJECT, offset_of!(Lane, worker)),
        member(c"application", py::T_OBJECT, offset_of!(Lane, application)),
        member(c"environ", py::T_OBJECT, offset_of!(Lane, environ)),
        member(c"out", py::T_OBJECT, offset_of!(Lane, out)),
        member(c"current", py::T_OBJECT, offset_of!(Lane, current)),
        member(c"cancelled", py::T_OBJECT, offset_of!(Lane, cancelled)),
        member(c"pending", py::T_OBJECT, offset_of!(Lane, pending)),
        member(c"page_start", py::T_PYSSIZET, offset_of!(Lane, page_start)),
        member(c"since", py::T_DOUBLE, offset_of!(Lane, since)),
        member(c"slowest", py::T_DOUBLE, offset_of!(Lane, slowest)),
        member(c"held_since", py::T_DOUBLE, offset_of!(Lane, held_since)),
        MemberDef { name: core::ptr::null(), kind: 0, offset: 0, flags: 0, doc: core::ptr::null() },
    ];
    // Before 3.9 the interpreter does not copy this table.
    let members = Box::leak(Box::new(members));
    let slots = [
        Slot { number: py::PY_TP_DEALLOC, value: drop_lane as unsafe extern "C" fn(Py) as *const c_void },
        Slot { number: py::PY_TP_METHODS, value: (&raw const METHODS).cast() },
        Slot { number: py::PY_TP_MEMBERS, value: members.as_ptr().cast() },
        Slot { number: py::PY_TP_GETSET, value: (&raw const GETSET).cast() },
        Slot::END,
    ];
    let spec = py::TypeSpec {
        name: c"daemun_accelerator.Lane".as_ptr(),
        size: size_of::<Lane>() as i32,
        item_size: 0,
        flags: py::TYPE_DEFAULT | py::TYPE_BASE,
        slots: slots.as_ptr(),
    };
    // SAFETY: the specification is copied.
    unsafe { py::PyType_FromSpec(&raw const spec) }
}

static mut METHODS: [MethodDef; 3] = [
    MethodDef {
        name: c"answer".as_ptr(),
        function: answer as py::FastCall as *const c_void,
        flags: py::METH_FASTCALL | py::METH_KEYWORDS,
        doc: c"Calls the application once.".as_ptr(),
    },
    MethodDef {
        name: c"take_frames".as_ptr(),
        function: take_frames as py::Unary as *const c_void,
        flags: py::METH_O,
        doc: c"Takes in all whole frames; gives where the rest begins.".as_ptr(),
    },
    MethodDef::END,
];

static mut GETSET: [GetSetDef; 2] = [
    GetSetDef { name: c"page".as_ptr(), get: get_page, set: set_page, doc: core::ptr::null(), closure: null_mut() },
    GetSetDef { name: core::ptr::null(), get: get_page, set: set_page, doc: core::ptr::null(), closure: null_mut() },
];

unsafe extern "C" fn drop_lane(object: Py) {
    // SAFETY: nobody refers to it any more; each reference in it is its own. The shim's class has this as its base, so
    // the type's own reference is given back here.
    unsafe {
        let lane = object.cast::<Lane>();
        let kind = (*object).kind;
        let fields = [(*lane).worker, (*lane).application, (*lane).environ, (*lane).out, (*lane).current];
        for reference in fields.into_iter().chain([(*lane).cancelled, (*lane).pending]) {
            py::Py_DecRef(reference);
        }
        (*lane).release_page();
        (*lane).maker = None;
        let free: unsafe extern "C" fn(Py) = core::mem::transmute(py::PyType_GetSlot(kind, py::PY_TP_FREE));
        free(object);
        py::Py_DecRef(kind);
    }
}

unsafe extern "C" fn get_page(object: Py, _: *mut c_void) -> Py {
    // SAFETY: our own object; the buffer holds what it is of.
    unsafe {
        let lane = &*object.cast::<Lane>();
        lane.page.as_ref().map_or_else(none, |page| Own::share(page.object).give())
    }
}

unsafe extern "C" fn set_page(object: Py, value: Py, _: *mut c_void) -> c_int {
    // SAFETY: our own object, and one that may have a buffer.
    unsafe {
        let lane = &mut *object.cast::<Lane>();
        lane.release_page();
        if value.is_null() || value == &raw mut py::_Py_NoneStruct {
            return 0;
        }
        let mut buffer = Box::new(core::mem::zeroed::<py::Buffer>());
        if py::PyObject_GetBuffer(value, &raw mut *buffer, py::WRITABLE) < 0 {
            return -1;
        }
        lane.page = Some(buffer);
        0
    }
}

unsafe extern "C" fn take_frames(object: Py, data: Py) -> Py {
    // SAFETY: our own object.
    let lane = unsafe { &mut *object.cast::<Lane>() };
    let place = lane.take_frames(data);
    // SAFETY: makes a number.
    give(place.and_then(|place| unsafe { Own::take(py::PyLong_FromLong(place as _)) }))
}

unsafe extern "C" fn answer(object: Py, arguments: *const Py, count: isize, keywords: Py) -> Py {
    // SAFETY: our own object and this many arguments.
    unsafe {
        if count != 4 || !keywords.is_null() {
            raise(c"answer takes four arguments");
            return null_mut();
        }
        let [request, block, kind, body] = *arguments.cast::<[Py; 4]>();
        let lane = object.cast::<Lane>();
        match Call::new(lane, request, block, body).run(kind) {
            Ok(()) => none(),
            Err(Raised) => null_mut(),
        }
    }
}

impl Lane {
    fn release_page(&mut self) {
        if let Some(mut page) = self.page.take() {
            // SAFETY: filled by the interpreter; what a null pointer is the beginning of is never touched.
            unsafe { py::PyBuffer_Release(&raw mut *page) }
        }
    }

    /// Remembers the shim's `Exchange`, or forgets the last one.
    pub fn set_current(&mut self, exchange: Py) {
        // SAFETY: an object that is alive, or NULL. The old one goes last: its end may run code.
        unsafe {
            if !exchange.is_null() {
                py::Py_IncRef(exchange);
            }
            py::Py_DecRef(core::mem::replace(&mut self.current, exchange));
        }
    }

    fn take_frames(&mut self, data: Py) -> Result<usize> {
        // SAFETY: the type is looked at first; the caller holds it.
        let all: &[u8] = unsafe {
            if !py::is(data, &raw const py::PyBytes_Type) {
                return Err(raise(c"frames come as bytes"));
            }
            py::bytes(data)
        };
        let mut place = 0;
        while let Some(header) = all.get(place..).and_then(|rest| rest.first_chunk::<HEADER>()) {
            let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let request = u32::from_le_bytes([header[5], header[6], header[7], header[8]]);
            let Some(payload) = all.get(place + HEADER..place + HEADER + length) else {
                if length > MAX_PAYLOAD {
                    return Err(raise(c"a frame from the front is too long"));
                }
                break;
            };
            self.take_frame(header[4], request, payload)?;
            place += HEADER + length;
        }
        Ok(place)
    }

    fn take_frame(&mut self, kind: u8, request: u32, payload: &[u8]) -> Result<()> {
        let (lane, end) = (core::ptr::from_mut(self).cast::<py::Object>(), null_mut::<py::Object>());
        // SAFETY: all objects are alive; a tuple takes over what is stored in it.
        unsafe {
            let request = Own::take(py::PyLong_FromLong(request as _))?;
            if kind != REQUEST {
                let (kind, payload) = (Own::take(py::PyLong_FromLong(kind.into()))?, bytes_of(payload)?);
                let dispatch = names()?.dispatch;
                let (kind, payload) = (kind.py(), payload.py());
                Own::take(py::PyObject_CallMethodObjArgs(lane, dispatch, kind, request.py(), payload, end))?;
                return Ok(());
            }
            let (start, rest) = payload.split_first_chunk::<5>().ok_or_else(|| raise(c"a request is too short"))?;
            let size = u32::from_le_bytes([start[1], start[2], start[3], start[4]]) as usize;
            let (block, body) = rest.split_at_checked(size).ok_or_else(|| raise(c"a request is too short"))?;
            let (kind, block) = (Own::take(py::PyLong_FromLong(start[0].into()))?, bytes_of(block)?);
            let mut body = bytes_of(body)?;
            if start[0] > INLINE {
                let prepare = names()?.prepare_body;
                let (request, kind) = (request.py(), kind.py());
                body = Own::take(py::PyObject_CallMethodObjArgs(lane, prepare, request, kind, body.py(), end))?;
            }
            let waiting = Own::take(py::PyTuple_New(4))?;
            for (index, part) in [request, block, kind, body].into_iter().enumerate() {
                done(py::PyTuple_SetItem(waiting.py(), index as isize, part.give()))?;
            }
            let pending = self.pending;
            Own::take(py::PyObject_CallMethodObjArgs(pending, names()?.append, waiting.py(), end))?;
        }
        Ok(())
    }

    /// Stores `started` of a request's slot, then reads `revoked`: false if it was taken back.
    fn start(&self, slot: usize) -> bool {
        let Some(page) = &self.page else { return true };
        let place = self.page_start as usize + slot;
        if place + SLOTS >= page.length as usize {
            return true;
        }
        // SAFETY: within the mapping, which the buffer holds; the other side uses single bytes as well.
        unsafe {
            AtomicU8::from_ptr(page.data.add(place)).store(1, Ordering::SeqCst);
            AtomicU8::from_ptr(page.data.add(place + SLOTS)).load(Ordering::SeqCst) == 0
        }
    }

    fn call_method(&mut self, name: Py) -> Result<()> {
        let lane = core::ptr::from_mut(self).cast::<py::Object>();
        // SAFETY: all objects are alive.
        unsafe { Own::take(py::PyObject_CallMethodObjArgs(lane, name, null_mut::<py::Object>()))? };
        Ok(())
    }

    /// Notes how long an answer took, and has written what was held back for too long.
    fn finish(&mut self) -> Result<()> {
        let now = py::clock();
        let spent = now - self.since;
        self.since = now;
        self.slowest = if spent > self.slowest { spent } else { self.slowest * 0.9 };
        // SAFETY: a list.
        let held = unsafe { py::PyList_Size(self.out) };
        if held == 1 {
            self.held_since = now;
        }
        if held > 0 && now - self.held_since + self.slowest >= HOLD {
            return self.call_method(names()?.flush);
        }
        Ok(())
    }
}

/// One call of the application.
struct Call {
    lane: *mut Lane,
    request: Py,
    block: Py,
    body: Py,
}

impl Call {
    fn new(lane: *mut Lane, request: Py, block: Py, body: Py) -> Self {
        Self { lane, request, block, body }
    }

    /// The lane. Never held across a call of Python code, which may look at it as well.
    fn lane(&self) -> &mut Lane {
        // SAFETY: the interpreter holds it for this call, and is locked.
        unsafe { &mut *self.lane }
    }

    fn run(&self, kind: Py) -> Result<()> {
        let names = names()?;
        let end = null_mut::<py::Object>();
        // SAFETY: the arguments of a running call are alive.
        unsafe {
            let in_frame = matches!(py::PyLong_AsLong(kind), 0..=1) && py::is(self.block, &raw const py::PyBytes_Type);
            let is_usual = in_frame && self.lane().page.is_some() && py::PySet_Size(self.lane().cancelled) == 0;
            let environ = if is_usual { self.environ()? } else { None };
            let Some(environ) = environ else {
                let (lane, plain) = (self.lane.cast::<py::Object>(), shim()?.answer);
                let (request, block, body) = (self.request, self.block, self.body);
                Own::take(py::PyObject_CallFunctionObjArgs(plain, lane, request, block, kind, body, end))?;
                return Ok(());
            };
            let slot = py::PyLong_AsLong(self.request) as usize % SLOTS;
            if !self.lane().start(slot) {
                let lane = self.lane.cast::<py::Object>();
                Own::take(py::PyObject_CallMethodObjArgs(lane, names.skip, self.request, kind, self.body, end))?;
                return Ok(());
            }
            let input = Own::take(py::PyObject_CallFunctionObjArgs(shim()?.bytes_io, self.body, end))?;
            done(py::PyDict_SetItem(environ.py(), names.wsgi_input, input.py()))?;
            self.lane().set_current(null_mut());
            let (start, start_response) = start::begin(self.lane, self.request)?;
            let application = self.lane().application;
            let result = py::PyObject_CallFunctionObjArgs(application, environ.py(), start_response.py(), end);
            let sent = Own::take(result).and_then(|result| self.send(&start, &result));
            let sent = sent.or_else(|Raised| self.fail(&start));
            if py::PySet_Size(self.lane().cancelled) > 0 {
                let kept = Error::keep();
                done(py::PySet_Discard(self.lane().cancelled, self.request))?;
                kept.restore();
            }
            sent?;
        }
        self.lane().finish()
    }

    fn environ(&self) -> Result<Option<Own>> {
        let lane = self.lane();
        let maker = match &mut lane.maker {
            Some(maker) => maker,
            none => none.insert(Box::new(Maker::new(lane.environ)?)),
        };
        maker.make(self.block)
    }

    /// A child that the application forked must not come back as a second worker.
    fn end_forked_child(&self) -> Result<()> {
        let names = names()?;
        let worker = self.lane().worker;
        // SAFETY: the lane holds its worker.
        unsafe {
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
            let item = |index| if is_list { py::PyList_GetItem(result, index) } else { py::PyTuple_GetItem(result, index) };
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
            let spent = ((py::clock() - self.lane().since) * 1e6) as u32;
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
            done(py::PyList_Append(self.lane().out, frame.py()))?;
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
                        if self.lane().slowest >= HOLD {
                            self.lane().call_method(names.flush)?;
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

fn bytes_of(data: &[u8]) -> Result<Own> {
    // SAFETY: the bytes are copied.
    unsafe { Own::take(py::PyBytes_FromStringAndSize(data.as_ptr(), data.len() as isize)) }
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
