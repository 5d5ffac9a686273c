//! What a program or an application complains of while it answers, on its way to the log.

use bytes::BytesMut;

use crate::telemetry::ErrorLogger;

/// Bytes that one request may write to the log.
const LOGGED: usize = 64 * 1024;

/// Longest line of it.
const LINE: usize = 4096;

/// Writes to the log line by line, up to a cap. What is left without a line end is written when it is dropped.
pub struct LogLines {
    log: ErrorLogger,
    /// What stands before each line.
    name: String,
    line: BytesMut,
    logged: usize,
}

impl LogLines {
    /// Those of the request or program of this name.
    pub fn new(log: ErrorLogger, name: String) -> Self {
        Self { log, name, line: BytesMut::new(), logged: 0 }
    }

    /// More of them.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.logged >= LOGGED {
            return;
        }
        for &byte in bytes {
            if byte != b'\n' {
                self.line.extend_from_slice(&[byte]);
            }
            if byte == b'\n' || self.line.len() >= LINE {
                self.write();
            }
        }
        if self.logged >= LOGGED {
            let name = &self.name;
            self.log.warning(format_args!("{name}: more on standard error is left out"));
        }
    }

    /// Writes a line and empties it.
    fn write(&mut self) {
        let text = self.line.split();
        let text = text.strip_suffix(b"\r").unwrap_or(&text);
        if !text.is_empty() {
            self.log.warning(format_args!("{}: {}", self.name, String::from_utf8_lossy(text)));
        }
        self.logged += text.len() + 1;
    }
}

impl Drop for LogLines {
    fn drop(&mut self) {
        if self.logged < LOGGED {
            self.write();
        }
    }
}
