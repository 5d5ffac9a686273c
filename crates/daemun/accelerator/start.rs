//! `start_response` of one request. The usual call is answered here; anything else by the shim's `Exchange`, which is
//! made only then.

use core::ffi::c_void;
use core::ptr::null_mut;

use crate::lane::Lane;
use crate::python::{self as py, Own, Py, Result, Slot, done};
use crate::{give, head, names, raise, shim};

/// What is known of an answer before it is sent.
#[repr(C)]
pub struct Start {
    object: py::Object,
    /// A reference of its own.
    lane: *mut Lane,
    /// The request's id, an `int`; a reference of its own.
    request: Py,
    /// `bytes`, or NULL before `start_response` was called.
    pub head: Py,
    /// The shim's `Exchange`, where it was needed.
    pub exchange: Py,
    /// What `Content-Length` says, or -1.
    pub declared: isize,
    /// Whether the answer was sent as a whole.
    pub ended: bool,
}

static mut TYPE: Py = null_mut();

/// Makes the type.
pub fn make_type() -> Result<()> {
    let slots =
        [Slot { number: py::PY_TP_DEALLOC, value: drop_start as unsafe extern "C" fn(Py) as *const c_void }, Slot::END];
    let spec = py::TypeSpec {
        name: c"daemun_accelerator.Start".as_ptr(),
        size: size_of::<Start>() as i32,
        item_size: 0,
        flags: py::TYPE_DEFAULT,
        slots: slots.as_ptr(),
    };
    // SAFETY: the specification is copied; the type is kept for ever.
    unsafe { TYPE = Own::take(py::PyType_FromSpec(&raw const spec))?.give() };
    Ok(())
}

static mut START_RESPONSE: py::MethodDef = py::MethodDef {
    name: c"start_response".as_ptr(),
    function: start_response as py::FastCall as *const c_void,
    flags: py::METH_FASTCALL | py::METH_KEYWORDS,
    doc: c"start_response(status, headers, exc_info=None)".as_ptr(),
};

static mut WRITE: py::MethodDef = py::MethodDef {
    name: c"write".as_ptr(),
    function: write as py::Unary as *const c_void,
    flags: py::METH_O,
    doc: c"Sends a part of the body at once.".as_ptr(),
};

/// The state of one request and the callable for its application.
pub fn begin(lane: *mut Lane, request: Py) -> Result<(Own, Own)> {
    // SAFETY: memory of a new object is zeroed; the references it gets are made for it.
    unsafe {
        let start = Own::take(py::PyType_GenericAlloc(TYPE, 0))?;
        let place = start.py().cast::<Start>();
        (*place).lane = Own::share(lane.cast()).give().cast();
        (*place).request = Own::share(request).give();
        (*place).declared = -1;
        let function = Own::take(py::PyCFunction_NewEx(&raw const START_RESPONSE, start.py(), null_mut()))?;
        Ok((start, function))
    }
}

unsafe extern "C" fn drop_start(object: Py) {
    // SAFETY: nobody refers to it any more; each reference in it is its own. A type made at run time belongs to its
    // instances, too.
    unsafe {
        let place = object.cast::<Start>();
        let kind = (*object).kind;
        for reference in [(*place).lane.cast(), (*place).request, (*place).head, (*place).exchange] {
            py::Py_DecRef(reference);
        }
        let free: unsafe extern "C" fn(Py) = core::mem::transmute(py::PyType_GetSlot(kind, py::PY_TP_FREE));
        free(object);
        py::Py_DecRef(kind);
    }
}

unsafe extern "C" fn start_response(object: Py, arguments: *const Py, count: isize, keywords: Py) -> Py {
    // SAFETY: the interpreter passes our own object and this many arguments.
    unsafe {
        let start = &mut *object.cast::<Start>();
        if count == 2 && keywords.is_null() && start.head.is_null() && start.exchange.is_null() {
            // A lane that calls an application has made its environment.
            let scratch = (*start.lane).maker.as_mut().map(|maker| &mut maker.scratch);
            let encoded = scratch.map_or(Ok(None), |scratch| head::encode(*arguments, *arguments.add(1), scratch));
            match encoded {
                Ok(Some(head)) => {
                    start.declared = head.declared.map_or(-1, |length| length as isize);
                    start.head = head.bytes.give();
                    return py::PyCFunction_NewEx(&raw const WRITE, object, null_mut());
                }
                Ok(None) => {}
                Err(py::Raised) => return null_mut(),
            }
        }
        give(start.exchange().and_then(|exchange| call(exchange, arguments, count, keywords)))
    }
}

/// The shim's own `start_response`, with the same arguments.
///
/// # Safety
/// There are `count` arguments, and one more for each of `keywords`.
unsafe fn call(exchange: Py, arguments: *const Py, count: isize, keywords: Py) -> Result<Own> {
    // SAFETY: as promised by the caller; a tuple takes over what is stored in it.
    unsafe {
        let method = Own::take(py::PyObject_GetAttr(exchange, names()?.start_response))?;
        let plain = Own::take(py::PyTuple_New(count))?;
        for index in 0..count {
            done(py::PyTuple_SetItem(plain.py(), index, Own::share(*arguments.offset(index)).give()))?;
        }
        if keywords.is_null() {
            return Own::take(py::PyObject_Call(method.py(), plain.py(), null_mut()));
        }
        let named = Own::take(py::PyDict_New())?;
        for index in 0..py::PyTuple_Size(keywords) {
            let name = py::PyTuple_GetItem(keywords, index);
            done(py::PyDict_SetItem(named.py(), name, *arguments.offset(count + index)))?;
        }
        Own::take(py::PyObject_Call(method.py(), plain.py(), named.py()))
    }
}

unsafe extern "C" fn write(object: Py, data: Py) -> Py {
    // SAFETY: the interpreter passes our own object.
    unsafe {
        let start = &mut *object.cast::<Start>();
        give(start.exchange().and_then(|exchange| {
            Own::take(py::PyObject_CallMethodObjArgs(exchange, names()?.write, data, null_mut::<py::Object>()))
        }))
    }
}

impl Start {
    /// The shim's `Exchange` for this request, in the state that was reached here.
    pub fn exchange(&mut self) -> Result<Py> {
        if !self.exchange.is_null() {
            return Ok(self.exchange);
        }
        if self.lane.is_null() {
            return Err(raise(c"the request is gone"));
        }
        let names = names()?;
        // SAFETY: all objects are alive; the new one is kept.
        unsafe {
            let (lane, end) = (self.lane.cast::<py::Object>(), null_mut::<py::Object>());
            let exchange = Own::take(py::PyObject_CallFunctionObjArgs(shim()?.exchange, lane, self.request, end))?;
            if !self.head.is_null() {
                done(py::PyObject_SetAttr(exchange.py(), names.head, self.head))?;
            }
            if self.ended {
                done(py::PyObject_SetAttr(exchange.py(), names.started, &raw mut py::_Py_TrueStruct))?;
                done(py::PyObject_SetAttr(exchange.py(), names.ended, &raw mut py::_Py_TrueStruct))?;
            } else {
                (*self.lane).set_current(exchange.py());
            }
            self.exchange = exchange.give();
        }
        Ok(self.exchange)
    }
}
