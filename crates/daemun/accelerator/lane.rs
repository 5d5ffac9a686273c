//! The base of the shim's `Lane`: its fields, frames from the front taken apart, answers written.

use alloc::boxed::Box;
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ptr::null_mut;
use core::sync::atomic::AtomicU8;

use crate::call::Call;
use crate::environ::Maker;
use crate::flags::Flags;
use crate::python::{self as py, GetSetDef, MemberDef, MethodDef, Own, Py, Raised, Result, Slot, done};
use crate::start::Start;
use crate::{give, names, none, raise, shelf, wire};

// As in `daemun-protocol/src/frame.rs`.
pub const HEADER: usize = 9;
const REQUEST: u8 = 3;
const INLINE: u8 = 1;
pub const SLOTS: usize = 64;
const MAX_PAYLOAD: usize = 1024 * 1024;

/// As in the shim: how long finished answers may wait for others, in seconds.
pub const HOLD: f64 = 0.0005;
const HOLD_CROWDED: f64 = 0.004;
const CROWDED: u8 = 0x80;

/// The fields that Python code sees are `Lane.__init__`'s: it fills them, and their meaning stands there.
#[repr(C)]
pub struct Lane {
    object: py::Object,
    pub worker: Py,
    pub application: Py,
    pub environ: Py,
    pub out: Py,
    pub cancelled: Py,
    pub pending: Py,
    pub socket: Py,
    pub poller: Py,
    pub writing: Py,
    pub rest: Py,
    pub page_start: isize,
    pub since: f64,
    pub slowest: f64,
    held_since: f64,
    pub hold: f64,
    /// The shim's `Exchange` that was made last.
    current: Py,
    /// The call that is running, or NULL; borrowed from it.
    pub running: *mut Start,
    /// The request that the application is called for, and the one that the monitor's thread interrupts; -1 for none. That
    /// thread stores the second and reads the first, a call stores the first and reads the second: with the interpreter
    /// locked one of them sees the other.
    pub called: isize,
    pub interrupted: isize,
    pub page: Option<Box<py::Buffer>>,
    pub shelf: Option<Box<py::Buffer>>,
    /// Zeroed memory is `None` here, as it is above.
    pub maker: Option<Box<Maker>>,
    /// What is read from the front.
    pub buffer: Option<Box<[u8; wire::RECEIVE]>>,
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
        member(c"socket", py::T_OBJECT, offset_of!(Lane, socket)),
        member(c"poller", py::T_OBJECT, offset_of!(Lane, poller)),
        member(c"writing", py::T_OBJECT, offset_of!(Lane, writing)),
        member(c"rest", py::T_OBJECT, offset_of!(Lane, rest)),
        member(c"cancelled", py::T_OBJECT, offset_of!(Lane, cancelled)),
        member(c"pending", py::T_OBJECT, offset_of!(Lane, pending)),
        member(c"page_start", py::T_PYSSIZET, offset_of!(Lane, page_start)),
        member(c"called", py::T_PYSSIZET, offset_of!(Lane, called)),
        member(c"interrupted", py::T_PYSSIZET, offset_of!(Lane, interrupted)),
        member(c"since", py::T_DOUBLE, offset_of!(Lane, since)),
        member(c"slowest", py::T_DOUBLE, offset_of!(Lane, slowest)),
        member(c"held_since", py::T_DOUBLE, offset_of!(Lane, held_since)),
        member(c"hold", py::T_DOUBLE, offset_of!(Lane, hold)),
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

static mut METHODS: [MethodDef; 5] = [
    MethodDef {
        name: c"answer".as_ptr(),
        function: answer as py::FastCall as *const c_void,
        flags: py::METH_FASTCALL | py::METH_KEYWORDS,
        doc: c"Calls the application once.".as_ptr(),
    },
    MethodDef {
        name: c"receive".as_ptr(),
        function: receive as py::FastCall as *const c_void,
        flags: py::METH_FASTCALL | py::METH_KEYWORDS,
        doc: c"Takes in all that the front has sent.".as_ptr(),
    },
    MethodDef {
        name: c"take_frames".as_ptr(),
        function: take_frames as py::Unary as *const c_void,
        flags: py::METH_O,
        doc: c"Takes in all whole frames; gives where the rest begins.".as_ptr(),
    },
    MethodDef {
        name: c"send_laid".as_ptr(),
        function: shelf::send_laid as py::FastCall as *const c_void,
        flags: py::METH_FASTCALL | py::METH_KEYWORDS,
        doc: c"Lays a piece of an answer where the front can send it from, and says so.".as_ptr(),
    },
    MethodDef::END,
];

static mut GETSET: [GetSetDef; 4] = [
    GetSetDef { name: c"page".as_ptr(), get: get_page, set: set_page, doc: core::ptr::null(), closure: null_mut() },
    GetSetDef {
        name: c"current".as_ptr(),
        get: get_current,
        set: set_current,
        doc: core::ptr::null(),
        closure: null_mut(),
    },
    GetSetDef { name: c"shelf".as_ptr(), get: get_shelf, set: set_shelf, doc: core::ptr::null(), closure: null_mut() },
    GetSetDef { name: core::ptr::null(), get: get_page, set: set_page, doc: core::ptr::null(), closure: null_mut() },
];

unsafe extern "C" fn drop_lane(object: Py) {
    // SAFETY: nobody refers to it any more; each reference in it is its own. The shim's class has this as its base, so
    // the type's own reference is given back here.
    unsafe {
        let lane = object.cast::<Lane>();
        let kind = (*object).kind;
        let fields = [(*lane).worker, (*lane).application, (*lane).environ, (*lane).out, (*lane).cancelled];
        let others = [(*lane).pending, (*lane).socket, (*lane).poller, (*lane).writing, (*lane).rest, (*lane).current];
        for reference in fields.into_iter().chain(others) {
            py::Py_DecRef(reference);
        }
        release(&mut (*lane).page);
        release(&mut (*lane).shelf);
        (*lane).maker = None;
        (*lane).buffer = None;
        let free: unsafe extern "C" fn(Py) = core::mem::transmute(py::PyType_GetSlot(kind, py::PY_TP_FREE));
        free(object);
        py::Py_DecRef(kind);
    }
}

unsafe extern "C" fn get_page(object: Py, _: *mut c_void) -> Py {
    // SAFETY: our own object; the buffer holds what it is of.
    unsafe { held(&(*object.cast::<Lane>()).page) }
}

unsafe extern "C" fn set_page(object: Py, value: Py, _: *mut c_void) -> c_int {
    // SAFETY: our own object, and one that may have a buffer.
    unsafe { hold(&mut (*object.cast::<Lane>()).page, value) }
}

unsafe extern "C" fn get_shelf(object: Py, _: *mut c_void) -> Py {
    // SAFETY: our own object; the buffer holds what it is of.
    unsafe { held(&(*object.cast::<Lane>()).shelf) }
}

unsafe extern "C" fn set_shelf(object: Py, value: Py, _: *mut c_void) -> c_int {
    // SAFETY: our own object, and one that may have a buffer.
    unsafe { hold(&mut (*object.cast::<Lane>()).shelf, value) }
}

/// What a buffer is of, or `None`.
fn held(buffer: &Option<Box<py::Buffer>>) -> Py {
    // SAFETY: the buffer holds what it is of.
    buffer.as_ref().map_or_else(none, |buffer| unsafe { Own::share(buffer.object) }.give())
}

/// Puts a buffer of `value` in the place of the one that is there; -1 where it has none.
///
/// # Safety
/// `value` is alive, or NULL.
unsafe fn hold(buffer: &mut Option<Box<py::Buffer>>, value: Py) -> c_int {
    release(buffer);
    // SAFETY: as promised by the caller; the interpreter fills what is zeroed.
    unsafe {
        if value.is_null() || value == &raw mut py::_Py_NoneStruct {
            return 0;
        }
        let mut fresh = Box::new(core::mem::zeroed::<py::Buffer>());
        if py::PyObject_GetBuffer(value, &raw mut *fresh, py::WRITABLE) < 0 {
            return -1;
        }
        *buffer = Some(fresh);
    }
    0
}

fn release(buffer: &mut Option<Box<py::Buffer>>) {
    if let Some(mut buffer) = buffer.take() {
        // SAFETY: filled by the interpreter; what a null pointer is the beginning of is never touched.
        unsafe { py::PyBuffer_Release(&raw mut *buffer) }
    }
}

unsafe extern "C" fn get_current(object: Py, _: *mut c_void) -> Py {
    // SAFETY: our own object; a call that is running is alive.
    unsafe {
        let lane = object.cast::<Lane>();
        if !(*lane).running.is_null() {
            // Whoever asks for it gets the shim's, and the call goes on with that.
            return give((*(*lane).running).exchange().map(|exchange| Own::share(exchange)));
        }
        if (*lane).current.is_null() { none() } else { Own::share((*lane).current).give() }
    }
}

unsafe extern "C" fn set_current(object: Py, value: Py, _: *mut c_void) -> c_int {
    // SAFETY: our own object.
    unsafe { (*object.cast::<Lane>()).set_current(value) };
    0
}

unsafe extern "C" fn receive(object: Py, arguments: *const Py, count: isize, keywords: Py) -> Py {
    // SAFETY: our own object and this many arguments.
    unsafe {
        if count > 1 || !keywords.is_null() {
            raise(c"receive takes flags and nothing else");
            return null_mut();
        }
        let flags = if count == 1 { Some(*arguments) } else { None };
        match wire::receive(object.cast(), flags) {
            Ok(()) => none(),
            Err(Raised) => null_mut(),
        }
    }
}

unsafe extern "C" fn take_frames(object: Py, data: Py) -> Py {
    // SAFETY: our own object; the data is held by the caller, and its type is looked at first.
    unsafe {
        if !py::is(data, &raw const py::PyBytes_Type) {
            raise(c"frames come as bytes");
            return null_mut();
        }
        let place = take_all(object.cast(), py::bytes(data));
        give(place.and_then(|place| Own::take(py::PyLong_FromLong(place as _))))
    }
}

unsafe extern "C" fn answer(object: Py, arguments: *const Py, count: isize, keywords: Py) -> Py {
    // SAFETY: our own object and this many arguments.
    unsafe {
        if count != 4 || !keywords.is_null() {
            raise(c"answer takes four arguments");
            return null_mut();
        }
        let [request, block, kind, body] = *arguments.cast::<[Py; 4]>();
        let call = Call { lane: object.cast(), request, block, body };
        match call.run(kind) {
            Ok(()) => none(),
            Err(Raised) => null_mut(),
        }
    }
}

impl Lane {
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

    /// Stores `started` of a request's slot, then reads `revoked`: false if it was taken back.
    pub fn start(&self, slot: usize) -> bool {
        let Some(page) = &self.page else { return true };
        let place = self.page_start as usize + slot;
        if place + SLOTS >= page.length as usize {
            return true;
        }
        // SAFETY: within the mapping, which the buffer holds; the other side uses single bytes as well.
        unsafe {
            let started = AtomicU8::from_ptr(page.data.add(place));
            Flags { started, revoked: AtomicU8::from_ptr(page.data.add(place + SLOTS)) }.start()
        }
    }
}

/// Notes how long an answer took, and has written what was held back for too long.
///
/// # Safety
/// `lane` is alive during the call.
pub unsafe fn finish(lane: *mut Lane) -> Result<()> {
    let now = py::clock();
    // SAFETY: as promised by the caller; `out` is a list.
    unsafe {
        let spent = now - (*lane).since;
        (*lane).since = now;
        (*lane).slowest = if spent > (*lane).slowest { spent } else { (*lane).slowest * 0.9 };
        let held = py::PyList_Size((*lane).out);
        if held == 1 {
            (*lane).held_since = now;
        }
        let expected = if (*lane).hold > HOLD { spent } else { (*lane).slowest };
        if held > 0 && now - (*lane).held_since + expected >= (*lane).hold {
            return wire::flush(lane);
        }
    }
    Ok(())
}

/// Takes in whole frames; gives where the rest begins.
///
/// # Safety
/// `lane` is alive. No reference to it is held while Python code runs, which sees it as well.
pub unsafe fn take_all(lane: *mut Lane, all: &[u8]) -> Result<usize> {
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
        // SAFETY: as promised by the caller.
        unsafe { take_frame(lane, header[4], request, payload)? };
        place += HEADER + length;
    }
    Ok(place)
}

/// # Safety
/// As for [`take_all`].
unsafe fn take_frame(lane: *mut Lane, kind: u8, request: u32, payload: &[u8]) -> Result<()> {
    let (object, end) = (lane.cast::<py::Object>(), null_mut::<py::Object>());
    // SAFETY: all objects are alive; a tuple takes over what is stored in it.
    unsafe {
        let request = Own::take(py::PyLong_FromLong(request.into()))?;
        if kind != REQUEST {
            let (kind, payload) = (Own::take(py::PyLong_FromLong(kind.into()))?, bytes_of(payload)?);
            let dispatch = names()?.dispatch;
            let (kind, payload) = (kind.py(), payload.py());
            Own::take(py::PyObject_CallMethodObjArgs(object, dispatch, kind, request.py(), payload, end))?;
            return Ok(());
        }
        let (start, rest) = payload.split_first_chunk::<5>().ok_or_else(|| raise(c"a request is too short"))?;
        let size = u32::from_le_bytes([start[1], start[2], start[3], start[4]]) as usize;
        let (block, body) = rest.split_at_checked(size).ok_or_else(|| raise(c"a request is too short"))?;
        (*lane).hold = if start[0] & CROWDED == 0 { HOLD } else { HOLD_CROWDED };
        let body_kind = start[0] & !CROWDED;
        let (kind, block) = (Own::take(py::PyLong_FromLong(body_kind.into()))?, bytes_of(block)?);
        let mut body = bytes_of(body)?;
        if body_kind > INLINE {
            let prepare = names()?.prepare_body;
            let (request, kind) = (request.py(), kind.py());
            body = Own::take(py::PyObject_CallMethodObjArgs(object, prepare, request, kind, body.py(), end))?;
        }
        let waiting = Own::take(py::PyTuple_New(4))?;
        for (index, part) in [request, block, kind, body].into_iter().enumerate() {
            done(py::PyTuple_SetItem(waiting.py(), index as isize, part.give()))?;
        }
        Own::take(py::PyObject_CallMethodObjArgs((*lane).pending, names()?.append, waiting.py(), end))?;
    }
    Ok(())
}

/// A new `bytes` object.
pub fn bytes_of(data: &[u8]) -> Result<Own> {
    // SAFETY: the bytes are copied.
    unsafe { Own::take(py::PyBytes_FromStringAndSize(data.as_ptr(), data.len() as isize)) }
}
