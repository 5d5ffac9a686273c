//! What is used of CPython's C API: declared by hand, found in the interpreter that loads us.
//!
//! Only functions and layouts that are the same from 3.8 on: those of the limited API, and five that are older than
//! their place in it (`PyUnicode_AsUTF8AndSize`, `PyObject_GetBuffer`, `PyBuffer_Release`, `PyMem_*`, and calls in the
//! `METH_FASTCALL` manner). Interpreters whose objects look different (without a GIL, traced) never load this.

use core::ffi::{c_char, c_int, c_long, c_uint, c_void};

/// The beginning of every object.
#[repr(C)]
pub struct Object {
    count: isize,
    pub kind: *mut Object,
}

pub type Py = *mut Object;

/// `METH_FASTCALL | METH_KEYWORDS`.
pub type FastCall = unsafe extern "C" fn(Py, *const Py, isize, Py) -> Py;
/// `METH_O`, and slots of one argument.
pub type Unary = unsafe extern "C" fn(Py, Py) -> Py;

pub const METH_O: c_int = 0x8;
pub const METH_FASTCALL: c_int = 0x80;
pub const METH_KEYWORDS: c_int = 0x2;

#[repr(C)]
pub struct MethodDef {
    pub name: *const c_char,
    pub function: *const c_void,
    pub flags: c_int,
    pub doc: *const c_char,
}

#[repr(C)]
pub struct MemberDef {
    pub name: *const c_char,
    pub kind: c_int,
    pub offset: isize,
    pub flags: c_int,
    pub doc: *const c_char,
}

pub const T_DOUBLE: c_int = 4;
pub const T_OBJECT: c_int = 6;
pub const T_PYSSIZET: c_int = 19;

#[repr(C)]
pub struct GetSetDef {
    pub name: *const c_char,
    pub get: unsafe extern "C" fn(Py, *mut c_void) -> Py,
    pub set: unsafe extern "C" fn(Py, Py, *mut c_void) -> c_int,
    pub doc: *const c_char,
    pub closure: *mut c_void,
}

#[repr(C)]
pub struct Slot {
    pub number: c_int,
    pub value: *const c_void,
}

pub const PY_MOD_EXEC: c_int = 2;
pub const PY_TP_DEALLOC: c_int = 52;
pub const PY_TP_METHODS: c_int = 64;
pub const PY_TP_MEMBERS: c_int = 72;
pub const PY_TP_GETSET: c_int = 73;
pub const PY_TP_FREE: c_int = 74;

#[repr(C)]
pub struct TypeSpec {
    pub name: *const c_char,
    pub size: c_int,
    pub item_size: c_int,
    pub flags: c_uint,
    pub slots: *const Slot,
}

/// `Py_TPFLAGS_DEFAULT` of the limited API, which leaves `HAVE_VERSION_TAG` out where it is not there.
pub const TYPE_DEFAULT: c_uint = 1 << 18;
pub const TYPE_BASE: c_uint = 1 << 10;

#[repr(C)]
pub struct ModuleDef {
    pub base: Object,
    pub init: *const c_void,
    pub index: isize,
    pub copy: *const c_void,
    pub name: *const c_char,
    pub doc: *const c_char,
    pub size: isize,
    pub methods: *const MethodDef,
    pub slots: *const Slot,
    pub traverse: *const c_void,
    pub clear: *const c_void,
    pub free: *const c_void,
}

impl Object {
    /// A static object before the interpreter has seen it.
    pub const NEW: Self = Self { count: 1, kind: core::ptr::null_mut() };
}

/// `Py_buffer`.
#[repr(C)]
pub struct Buffer {
    pub data: *mut u8,
    pub object: Py,
    pub length: isize,
    item_size: isize,
    read_only: c_int,
    dimensions: c_int,
    format: *const c_char,
    shape: *const isize,
    strides: *const isize,
    sub_offsets: *const isize,
    internal: *const c_void,
}

pub const WRITABLE: c_int = 1;

#[repr(C)]
pub struct TimeSpec {
    pub seconds: i64,
    pub nanoseconds: c_long,
}

pub const CLOCK_MONOTONIC: c_int = 1;

unsafe extern "C" {
    pub static mut PyBytes_Type: Object;
    pub static mut PyList_Type: Object;
    pub static mut PyTuple_Type: Object;
    pub static mut PyUnicode_Type: Object;
    pub static mut _Py_NoneStruct: Object;
    pub static mut _Py_FalseStruct: Object;
    pub static mut _Py_TrueStruct: Object;
    pub static mut PyExc_AttributeError: Py;
    pub static mut PyExc_TypeError: Py;

    pub fn Py_IncRef(object: Py);
    pub fn Py_DecRef(object: Py);
    pub fn PyMem_Malloc(size: usize) -> *mut c_void;
    pub fn PyMem_Realloc(old: *mut c_void, size: usize) -> *mut c_void;
    pub fn PyMem_Free(old: *mut c_void);

    pub fn PyModuleDef_Init(def: *mut ModuleDef) -> Py;
    pub fn PyModule_AddObject(module: Py, name: *const c_char, value: Py) -> c_int;
    pub fn PyType_FromSpec(spec: *const TypeSpec) -> Py;
    pub fn PyType_GenericAlloc(kind: Py, items: isize) -> Py;
    pub fn PyType_GetSlot(kind: Py, slot: c_int) -> *mut c_void;
    pub fn PyCFunction_NewEx(def: *const MethodDef, object: Py, module: Py) -> Py;

    pub fn PyObject_Call(callable: Py, arguments: Py, keywords: Py) -> Py;
    pub fn PyObject_CallFunctionObjArgs(callable: Py, ...) -> Py;
    pub fn PyObject_CallMethodObjArgs(object: Py, name: Py, ...) -> Py;
    pub fn PyObject_GetAttr(object: Py, name: Py) -> Py;
    pub fn PyObject_SetAttr(object: Py, name: Py, value: Py) -> c_int;
    pub fn PyObject_GetIter(object: Py) -> Py;
    pub fn PyIter_Next(iterator: Py) -> Py;
    pub fn PyObject_GetBuffer(object: Py, buffer: *mut Buffer, flags: c_int) -> c_int;
    pub fn PyBuffer_Release(buffer: *mut Buffer);

    pub fn PyErr_ExceptionMatches(kind: Py) -> c_int;
    pub fn PyErr_Fetch(kind: *mut Py, value: *mut Py, trace: *mut Py);
    pub fn PyErr_Restore(kind: Py, value: Py, trace: Py);
    pub fn PyErr_NormalizeException(kind: *mut Py, value: *mut Py, trace: *mut Py);
    pub fn PyErr_Occurred() -> Py;
    pub fn PyErr_Clear();
    pub fn PyErr_SetString(kind: Py, text: *const c_char);
    pub fn PyException_SetTraceback(error: Py, trace: Py) -> c_int;

    pub fn PyBytes_AsString(bytes: Py) -> *mut u8;
    pub fn PyBytes_FromStringAndSize(data: *const u8, length: isize) -> Py;
    pub fn PyBytes_Size(bytes: Py) -> isize;
    pub fn PyDict_Copy(dict: Py) -> Py;
    pub fn PyDict_New() -> Py;
    pub fn PyDict_SetItem(dict: Py, key: Py, value: Py) -> c_int;
    pub fn PyDict_Size(dict: Py) -> isize;
    pub fn PyList_Append(list: Py, item: Py) -> c_int;
    pub fn PyList_New(length: isize) -> Py;
    pub fn PyList_SetItem(list: Py, index: isize, item: Py) -> c_int;
    pub fn PyList_SetSlice(list: Py, begin: isize, end: isize, items: Py) -> c_int;
    pub fn PyList_GetItem(list: Py, index: isize) -> Py;
    pub fn PyList_Size(list: Py) -> isize;
    pub fn PyObject_Size(object: Py) -> isize;
    pub fn PyLong_AsLong(number: Py) -> c_long;
    pub fn PyLong_FromLong(number: c_long) -> Py;
    pub fn PySet_Discard(set: Py, item: Py) -> c_int;
    pub fn PySet_Size(set: Py) -> isize;
    pub fn PyTuple_GetItem(tuple: Py, index: isize) -> Py;
    pub fn PyTuple_New(length: isize) -> Py;
    pub fn PyTuple_SetItem(tuple: Py, index: isize, item: Py) -> c_int;
    pub fn PyTuple_Size(tuple: Py) -> isize;
    pub fn PyUnicode_AsUTF8AndSize(text: Py, length: *mut isize) -> *const u8;
    pub fn PyUnicode_DecodeLatin1(data: *const u8, length: isize, errors: *const c_char) -> Py;
    pub fn PyUnicode_GetLength(text: Py) -> isize;
    pub fn PyUnicode_InternFromString(text: *const c_char) -> Py;

    pub fn abort() -> !;
    pub fn clock_gettime(clock: c_int, time: *mut TimeSpec) -> c_int;
}

/// A reference that is ours.
pub struct Own(Py);

/// An exception is set.
pub struct Raised;

pub type Result<T> = core::result::Result<T, Raised>;

impl Own {
    /// Takes over what a function of the API gave; NULL means that it raised.
    ///
    /// # Safety
    /// `object` is NULL or a reference that belongs to the caller.
    pub unsafe fn take(object: Py) -> Result<Self> {
        if object.is_null() { Err(Raised) } else { Ok(Self(object)) }
    }

    /// One more reference to something borrowed.
    ///
    /// # Safety
    /// `object` is alive.
    pub unsafe fn share(object: Py) -> Self {
        // SAFETY: as promised by the caller.
        unsafe { Py_IncRef(object) };
        Self(object)
    }

    /// Lends it.
    pub fn py(&self) -> Py {
        self.0
    }

    /// Gives it away.
    pub fn give(self) -> Py {
        let object = self.0;
        core::mem::forget(self);
        object
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: the reference was ours; the interpreter is locked, for only its threads come here.
        unsafe { Py_DecRef(self.0) }
    }
}

/// Turns the API's -1 into an error.
pub fn done(status: c_int) -> Result<()> {
    if status < 0 { Err(Raised) } else { Ok(()) }
}

/// The bytes of a `bytes` object.
///
/// # Safety
/// `object` is exactly `bytes` and outlives the slice.
pub unsafe fn bytes<'a>(object: Py) -> &'a [u8] {
    // SAFETY: the buffer belongs to an immutable object that is alive.
    unsafe { core::slice::from_raw_parts(PyBytes_AsString(object), PyBytes_Size(object) as usize) }
}

/// The text of a `str` object where it is ASCII; `None` otherwise.
///
/// # Safety
/// `object` is exactly `str` and outlives the slice.
pub unsafe fn ascii<'a>(object: Py) -> Option<&'a [u8]> {
    let mut length = 0;
    // SAFETY: the UTF-8 form is kept by the object; for ASCII it is the object's own buffer.
    unsafe {
        let data = PyUnicode_AsUTF8AndSize(object, &raw mut length);
        if data.is_null() {
            // A lone surrogate.
            PyErr_Clear();
            return None;
        }
        (length == PyUnicode_GetLength(object)).then(|| core::slice::from_raw_parts(data, length as usize))
    }
}

/// Whether `object` is exactly of this built-in type.
///
/// # Safety
/// `object` is alive.
pub unsafe fn is(object: Py, kind: *const Object) -> bool {
    // SAFETY: every object begins so.
    unsafe { (*object).kind.cast_const() == kind }
}

/// Seconds of the clock that `time.perf_counter` reads.
pub fn clock() -> f64 {
    let mut time = TimeSpec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the place is ours.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &raw mut time) };
    time.seconds as f64 + time.nanoseconds as f64 * 1e-9
}

impl MethodDef {
    /// The end of a table.
    pub const END: Self =
        Self { name: core::ptr::null(), function: core::ptr::null(), flags: 0, doc: core::ptr::null() };
}

impl Slot {
    /// The end of a table.
    pub const END: Self = Self { number: 0, value: core::ptr::null() };
}
