//! Reading frames and writing answers without waiting. Whatever would wait, and every error, is the shim's: its sockets
//! may be those of a library that switches tasks instead.

use alloc::boxed::Box;
use core::ffi::{c_int, c_long, c_void};
use core::mem::{offset_of, zeroed};
use core::ptr::null_mut;

use crate::lane::{Lane, bytes_of, take_all};
use crate::python::{self as py, Own, Py, Result, done};
use crate::{names, shim};

/// As in the shim: bytes that are read at a time.
pub const RECEIVE: usize = 64 * 1024;

/// Answers that are written at a time.
const PARTS: usize = 64;

const EAGAIN: c_int = 11;
const MSG_CTRUNC: c_int = 0x8;
const MSG_DONTWAIT: c_int = 0x40;
const MSG_NOSIGNAL: c_int = 0x4000;
const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;

#[repr(C)]
struct Part {
    data: *mut u8,
    length: usize,
}

/// `struct msghdr` of 64-bit Linux, as the kernel wants it.
#[repr(C)]
struct Message {
    name: *mut c_void,
    name_length: u32,
    parts: *mut Part,
    part_count: usize,
    control: *mut c_void,
    control_length: usize,
    flags: c_int,
}

/// `struct cmsghdr` of 64-bit Linux, with what came.
#[repr(C, align(8))]
struct Control {
    length: usize,
    level: c_int,
    kind: c_int,
    descriptors: [c_int; 16],
}

const _: () = assert!(size_of::<Message>() == 56 && offset_of!(Control, descriptors) == 16);

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
    fn recvmsg(socket: c_int, message: *mut Message, flags: c_int) -> isize;
    fn sendmsg(socket: c_int, message: *const Message, flags: c_int) -> isize;
}

/// What a look at the socket came to.
enum Seen {
    Frames,
    Nothing,
    /// Something that the shim must see itself.
    Other,
}

/// The shim's `Lane.receive`.
///
/// # Safety
/// `lane` is alive during the call.
pub unsafe fn receive(lane: *mut Lane, flags: Option<Py>) -> Result<()> {
    let names = names()?;
    // SAFETY: as promised by the caller; no reference to the lane is held across a call of Python code.
    unsafe {
        if py::PyList_Size((*lane).out) > 0 {
            flush(lane)?;
        }
        let flags = match flags {
            Some(flags) => py::PyLong_AsLong(flags),
            None => 0,
        };
        let waits = flags & c_long::from(MSG_DONTWAIT) == 0;
        loop {
            match take_in(lane)? {
                Seen::Frames => return Ok(()),
                Seen::Nothing if !waits => return Ok(()),
                // As in the shim: a thread that sleeps in recvmsg is also woken when the front reads.
                Seen::Nothing => {
                    let poller = (*lane).poller;
                    Own::take(py::PyObject_CallMethodObjArgs(poller, names.poll, null_mut::<py::Object>()))?;
                }
                Seen::Other => {
                    let end = null_mut::<py::Object>();
                    let flags = Own::take(py::PyLong_FromLong(flags | c_long::from(MSG_CMSG_CLOEXEC)))?;
                    let plain = shim()?.receive;
                    let lane = lane.cast::<py::Object>();
                    Own::take(py::PyObject_CallFunctionObjArgs(plain, lane, flags.py(), end))?;
                    return Ok(());
                }
            }
        }
    }
}

/// The socket's descriptor.
///
/// # Safety
/// `lane` is alive.
unsafe fn descriptor(lane: *mut Lane) -> Result<c_int> {
    // SAFETY: as promised by the caller.
    unsafe {
        let (socket, end) = ((*lane).socket, null_mut::<py::Object>());
        let number = Own::take(py::PyObject_CallMethodObjArgs(socket, names()?.fileno, end))?;
        Ok(py::PyLong_AsLong(number.py()) as c_int)
    }
}

/// Takes in what is there.
///
/// # Safety
/// `lane` is alive, and no other call of this is under way on it.
unsafe fn take_in(lane: *mut Lane) -> Result<Seen> {
    // SAFETY: the kernel writes within the buffers that it is given, and both live until the frames are taken in.
    unsafe {
        if !py::is((*lane).rest, &raw const py::PyBytes_Type) || py::PyBytes_Size((*lane).rest) > 0 {
            // The beginning of a frame waits for its end: what is large is the shim's.
            return Ok(Seen::Other);
        }
        let socket = descriptor(lane)?;
        let data = (*lane).buffer.get_or_insert_with(|| Box::new([0; RECEIVE])).as_mut_ptr();
        let mut part = Part { data, length: RECEIVE };
        let mut control: Control = zeroed();
        let mut message: Message = zeroed();
        message.parts = &raw mut part;
        message.part_count = 1;
        message.control = (&raw mut control).cast();
        message.control_length = size_of::<Control>();
        let read = recvmsg(socket, &raw mut message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if read < 0 && *__errno_location() == EAGAIN {
            return Ok(Seen::Nothing);
        }
        if read <= 0 {
            // The shim's own read says what it is.
            return Ok(Seen::Other);
        }
        if message.control_length > 0 || message.flags & MSG_CTRUNC != 0 {
            take_descriptors(lane, &control, message.control_length, message.flags)?;
        }
        let all = core::slice::from_raw_parts(data, read as usize);
        let place = take_all(lane, all)?;
        if place < all.len() {
            let rest = bytes_of(&all[place..])?;
            py::Py_DecRef(core::mem::replace(&mut (*lane).rest, rest.give()));
        }
        Ok(Seen::Frames)
    }
}

/// Hands descriptors to the shim's `take_descriptors`, in the form of `socket.recvmsg`.
///
/// # Safety
/// `lane` is alive, and the kernel has filled `length` bytes of `control`.
unsafe fn take_descriptors(lane: *mut Lane, control: &Control, length: usize, flags: c_int) -> Result<()> {
    // SAFETY: as promised by the caller; a tuple takes over what is stored in it.
    unsafe {
        let list = Own::take(py::PyList_New(0))?;
        if length >= offset_of!(Control, descriptors) {
            let size = control.length.clamp(offset_of!(Control, descriptors), size_of::<Control>());
            let size = size - offset_of!(Control, descriptors);
            let message = Own::take(py::PyTuple_New(3))?;
            let parts = [
                Own::take(py::PyLong_FromLong(control.level.into()))?,
                Own::take(py::PyLong_FromLong(control.kind.into()))?,
                bytes_of(core::slice::from_raw_parts(control.descriptors.as_ptr().cast(), size))?,
            ];
            for (index, part) in parts.into_iter().enumerate() {
                done(py::PyTuple_SetItem(message.py(), index as isize, part.give()))?;
            }
            done(py::PyList_Append(list.py(), message.py()))?;
        }
        let (flags, end) = (Own::take(py::PyLong_FromLong(flags.into()))?, null_mut::<py::Object>());
        let (lane, method) = (lane.cast::<py::Object>(), names()?.take_descriptors);
        Own::take(py::PyObject_CallMethodObjArgs(lane, method, list.py(), flags.py(), end))?;
        Ok(())
    }
}

/// The shim's `Lane.flush`: here as far as the socket takes it at once, the rest there.
///
/// # Safety
/// `lane` is alive during the call.
pub unsafe fn flush(lane: *mut Lane) -> Result<()> {
    let (names, end) = (names()?, null_mut::<py::Object>());
    // SAFETY: as promised by the caller; the parts are held by the list, which nobody changes between here and there,
    // for no Python code runs meanwhile.
    unsafe {
        let socket = descriptor(lane)?;
        // The lane's own thread and the monitor's write, one after the other.
        let writing = Own::share((*lane).writing);
        let no = &raw mut py::_Py_FalseStruct;
        let free = Own::take(py::PyObject_CallMethodObjArgs(writing.py(), names.acquire, no, end))?;
        let mut is_done = false;
        if free.py() != no {
            let sent = send_now(socket, (*lane).out);
            Own::take(py::PyObject_CallMethodObjArgs(writing.py(), names.release, end))?;
            is_done = sent?;
        }
        if !is_done {
            Own::take(py::PyObject_CallFunctionObjArgs(shim()?.flush, lane.cast::<py::Object>(), end))?;
        }
    }
    Ok(())
}

/// Writes the beginning of `out` and takes it away; whether nothing is left.
///
/// # Safety
/// `out` is a list.
unsafe fn send_now(socket: c_int, out: Py) -> Result<bool> {
    // SAFETY: as promised by the caller; the items are looked at first, and the kernel only reads.
    unsafe {
        let count = py::PyList_Size(out).min(PARTS as isize);
        let mut parts: [Part; PARTS] = zeroed();
        for (index, part) in (0..count).zip(&mut parts) {
            let item = py::PyList_GetItem(out, index);
            if !py::is(item, &raw const py::PyBytes_Type) {
                return Ok(false);
            }
            *part = Part { data: py::PyBytes_AsString(item), length: py::PyBytes_Size(item) as usize };
        }
        let mut message: Message = zeroed();
        message.parts = parts.as_mut_ptr();
        message.part_count = count as usize;
        let sent = sendmsg(socket, &raw const message, MSG_DONTWAIT | MSG_NOSIGNAL);
        let Ok(mut sent) = usize::try_from(sent) else { return Ok(false) };
        let mut whole = 0;
        let mut rest = None;
        for part in &parts[..count as usize] {
            if sent < part.length {
                rest =
                    (sent > 0).then(|| bytes_of(core::slice::from_raw_parts(part.data.add(sent), part.length - sent)));
                break;
            }
            sent -= part.length;
            whole += 1;
        }
        if let Some(rest) = rest {
            done(py::PyList_SetItem(out, whole, rest?.give()))?;
        }
        done(py::PyList_SetSlice(out, 0, whole, null_mut()))?;
        Ok(py::PyList_Size(out) == 0)
    }
}
