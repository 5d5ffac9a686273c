//! Reading what a process of ours says on a stream.

use std::io;

use rustix::buffer::spare_capacity;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Bytes that are read at once.
const PIECE: usize = 8192;

/// Waits for more and appends it; 0 bytes are the end.
///
/// By `read`, where the runtime would use `recv`, by which it also hears of signals: so a test can let ours fail alone.
pub async fn read_more(stream: &UnixStream, bytes: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        bytes.reserve(PIECE);
        match stream.try_io(Interest::READABLE, || Ok(rustix::io::read(stream, spare_capacity(bytes))?)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            result => return result,
        }
    }
}
