//! The hot path of a worker in machine code: a module that CPython loads beside `shim.py`, where it can.
//!
//! The shim is the reference and works without this. What is usual goes through here: a request whose body is in its
//! frame, an answer that is a list of `bytes` or an iterable of one piece. Whatever is unusual, and every error, is
//! handed to the shim's own code, so that meaning exists once.
//!
//! 1. [`lane`]: the base of the shim's `Lane`: takes frames apart, which [`wire`] has read.
//! 2. [`call`]: one call of the application, and its answer as a frame.
//! 3. [`environ`]: the environment dictionary.
//! 4. [`start`]: `start_response`, and [`head`] what was given to it.
//! 5. [`shelf`]: pieces of an answer that is no whole one, where the front can send them from.
//! 6. [`flags`]: whether a request has begun, the same lines as in the front.
//! 7. [`python`]: the C API.
//!
//! Needs nothing but the interpreter that loads it and the C library that the interpreter has: no `std`, no header,
//! no C compiler. Everything here runs with the interpreter locked; nothing here waits.

#![no_std]
#![expect(static_mut_refs, reason = "statics are written once, when the module is made, with the interpreter locked")]

extern crate alloc;

mod call;
mod environ;
#[path = "../src/app/handover/flags.rs"]
mod flags;
mod head;
mod lane;
mod python;
mod shelf;
mod start;
mod wire;

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{CStr, c_int};
use core::panic::PanicInfo;

use python::{self as py, Own, Py, Raised, Result, Slot, done};

/// Objects of the interpreter and of the shim that are needed again and again.
pub(crate) struct Names {
    pub acquire: Py,
    pub append: Py,
    pub close: Py,
    pub dispatch: Py,
    pub end_forked_child: Py,
    pub ended: Py,
    pub fail: Py,
    pub fileno: Py,
    pub forked: Py,
    pub head: Py,
    pub poll: Py,
    pub prepare_body: Py,
    pub release: Py,
    pub send_iterable: Py,
    pub send_list: Py,
    pub send_pieces: Py,
    pub settle_interrupt: Py,
    pub skip: Py,
    pub start_response: Py,
    pub started: Py,
    pub take_descriptors: Py,
    pub write: Py,
    pub wsgi_input: Py,
}

/// What the shim hands over: `Lane.answer`, `Lane.receive` and `Lane.flush` as they stand there, `Exchange`, `FileWrapper`, `io.BytesIO`, `itertools.chain`.
#[derive(Clone, Copy)]
pub(crate) struct Shim {
    pub answer: Py,
    pub receive: Py,
    pub flush: Py,
    pub exchange: Py,
    pub file_wrapper: Py,
    pub bytes_io: Py,
    pub chain: Py,
}

static mut NAMES: Option<Names> = None;
static mut SHIM: Option<Shim> = None;

/// The names, which are there since the module was made.
pub(crate) fn names() -> Result<&'static Names> {
    // SAFETY: written once, before anything else can be called.
    unsafe { NAMES.as_ref().ok_or(Raised) }
}

/// What the shim handed over.
pub(crate) fn shim() -> Result<Shim> {
    // SAFETY: written with the interpreter locked, before the first lane is made.
    unsafe { SHIM }.ok_or_else(|| raise(c"the shim has not bound the accelerator"))
}

/// Raises a TypeError.
pub(crate) fn raise(text: &CStr) -> Raised {
    // SAFETY: the text is copied.
    unsafe { py::PyErr_SetString(py::PyExc_TypeError, text.as_ptr()) };
    Raised
}

/// `daemun_accelerator`, as the import system wants it.
#[unsafe(no_mangle)]
pub extern "C" fn PyInit_daemun_accelerator() -> Py {
    // SAFETY: the definition is static.
    unsafe { py::PyModuleDef_Init(&raw mut MODULE) }
}

static mut MODULE: py::ModuleDef = py::ModuleDef {
    base: py::Object::NEW,
    init: core::ptr::null(),
    index: 0,
    copy: core::ptr::null(),
    name: c"daemun_accelerator".as_ptr(),
    doc: c"The hot path of daemun's shim.".as_ptr(),
    size: 0,
    methods: (&raw const METHODS).cast(),
    slots: (&raw const SLOTS).cast(),
    traverse: core::ptr::null(),
    clear: core::ptr::null(),
    free: core::ptr::null(),
};

static mut METHODS: [py::MethodDef; 2] = [
    py::MethodDef {
        name: c"bind".as_ptr(),
        function: bind as py::Unary as *const _,
        flags: py::METH_O,
        doc: c"Takes over what the shim has: the functions and types that `Shim` names.".as_ptr(),
    },
    py::MethodDef::END,
];

static mut SLOTS: [Slot; 2] =
    [Slot { number: py::PY_MOD_EXEC, value: execute as extern "C" fn(Py) -> c_int as *const _ }, Slot::END];

extern "C" fn execute(module: Py) -> c_int {
    match fill(module) {
        Ok(()) => 0,
        Err(Raised) => -1,
    }
}

fn fill(module: Py) -> Result<()> {
    // SAFETY: `intern` raises or gives a reference that is never given back.
    let intern = |text: &CStr| unsafe { Own::take(py::PyUnicode_InternFromString(text.as_ptr())).map(Own::give) };
    let names = Names {
        acquire: intern(c"acquire")?,
        append: intern(c"append")?,
        close: intern(c"close")?,
        dispatch: intern(c"dispatch")?,
        end_forked_child: intern(c"end_forked_child")?,
        ended: intern(c"ended")?,
        fail: intern(c"fail")?,
        fileno: intern(c"fileno")?,
        forked: intern(c"forked")?,
        head: intern(c"head")?,
        poll: intern(c"poll")?,
        prepare_body: intern(c"prepare_body")?,
        release: intern(c"release")?,
        send_iterable: intern(c"send_iterable")?,
        send_list: intern(c"send_list")?,
        send_pieces: intern(c"send_pieces")?,
        settle_interrupt: intern(c"settle_interrupt")?,
        skip: intern(c"skip")?,
        start_response: intern(c"start_response")?,
        started: intern(c"started")?,
        take_descriptors: intern(c"take_descriptors")?,
        write: intern(c"write")?,
        wsgi_input: intern(c"wsgi.input")?,
    };
    // SAFETY: the interpreter is locked; the module takes the type over.
    unsafe {
        NAMES = Some(names);
        start::make_type()?;
        let lane = Own::take(lane::make_type())?;
        done(py::PyModule_AddObject(module, c"Lane".as_ptr(), lane.give()))
    }
}

unsafe extern "C" fn bind(_module: Py, given: Py) -> Py {
    // SAFETY: a tuple, for it is asked for its type first; its items are kept for ever.
    unsafe {
        if !py::is(given, &raw const py::PyTuple_Type) || py::PyTuple_Size(given) != 7 {
            raise(c"bind takes a tuple of seven");
            return core::ptr::null_mut();
        }
        let item = |index| Own::share(py::PyTuple_GetItem(given, index)).give();
        SHIM = Some(Shim {
            answer: item(0),
            receive: item(1),
            flush: item(2),
            exchange: item(3),
            file_wrapper: item(4),
            bytes_io: item(5),
            chain: item(6),
        });
        none()
    }
}

/// A new reference to `None`.
pub(crate) fn none() -> Py {
    // SAFETY: it is there as long as the interpreter.
    unsafe { Own::share(&raw mut py::_Py_NoneStruct) }.give()
}

/// What a function gives back to the interpreter.
pub(crate) fn give(result: Result<Own>) -> Py {
    result.map_or(core::ptr::null_mut(), Own::give)
}

struct Memory;

#[global_allocator]
static MEMORY: Memory = Memory;

// SAFETY: the interpreter's allocator aligns for every type used here, whose alignment is eight at most, and it is only
// used with the interpreter locked.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size is allowed.
        unsafe { py::PyMem_Malloc(layout.size()).cast() }
    }

    unsafe fn dealloc(&self, place: *mut u8, _layout: Layout) {
        // SAFETY: it came from `alloc`.
        unsafe { py::PyMem_Free(place.cast()) }
    }

    unsafe fn realloc(&self, place: *mut u8, _layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: it came from `alloc`.
        unsafe { py::PyMem_Realloc(place.cast(), size).cast() }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: ends the process; the supervisor names the signal and starts another worker.
    unsafe { py::abort() }
}
