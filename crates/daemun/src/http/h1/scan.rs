//! Finding the end of a head while it comes in.
//!
//! Each byte is looked at once, however small the pieces are: a head that comes byte by byte costs O(n). Line ends are
//! CRLF and nothing else: RFC 9112, section 2.2 lets a recipient take a bare LF, and that freedom is what makes two
//! servers disagree.

use memchr::memchr;

use super::{HeadLimits, Refusal};
use crate::http::Status;
use crate::http::fields::is_token;

/// Empty lines that may come before a request line (RFC 9112, section 2.2 asks for at least one: old clients sent a
/// CRLF after a body). More is somebody trying.
const MAX_EMPTY_LINES: u8 = 2;

/// Where the search for the end of a head stands.
#[derive(Clone, Debug, Default)]
pub struct HeadScan {
    /// Everything before it was looked at.
    searched: usize,
    /// Where the request line begins, behind empty lines.
    start: usize,
    /// Where the line that is coming in begins.
    line: usize,
    empty_lines: u8,
    has_request_line: bool,
}

/// What [`HeadScan::advance`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scanned {
    /// The head is not complete.
    Partial,
    /// The head is `bytes[start..end]`, its last empty line included; a body or the next request follows.
    Complete {
        /// First byte of the request line.
        start: usize,
        /// Behind the empty line.
        end: usize,
    },
}

impl HeadScan {
    /// Looks at what is new in `bytes`, which must be the buffer of the last call, grown at its end.
    pub fn advance(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Scanned, Refusal> {
        while let Some(found) = memchr(b'\n', &bytes[self.searched..]) {
            let newline = self.searched + found;
            self.searched = newline + 1;
            if newline == self.line || bytes[newline - 1] != b'\r' {
                return Err(Refusal::bad("a line ends in a bare LF"));
            }
            if newline > self.line + 1 {
                if !self.has_request_line {
                    check_request_line(&bytes[self.line..newline - 1], limits)?;
                    self.has_request_line = true;
                }
                self.line = newline + 1;
                continue;
            }
            self.line = newline + 1;
            if self.has_request_line {
                check_length(newline + 1 - self.start, limits)?;
                return Ok(Scanned::Complete { start: self.start, end: newline + 1 });
            }
            self.empty_lines += 1;
            self.start = newline + 1;
            if self.empty_lines > MAX_EMPTY_LINES {
                return Err(Refusal::bad("too many empty lines before a request line"));
            }
        }
        self.searched = bytes.len();
        self.check_partial(&bytes[self.start..], limits)?;
        Ok(Scanned::Partial)
    }

    /// Refuses early what can no longer become a head, instead of waiting for the rest until a deadline.
    fn check_partial(&self, begun: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
        if let Some(&first) = begun.first()
            && first != b'\r'
            && !is_token(first)
        {
            return Err(Refusal::bad("a method is not a token"));
        }
        if !self.has_request_line && begun.len() > limits.max_request_line {
            return Err(Refusal::over(Status::URI_TOO_LONG, "the request line is too long", "max_request_line"));
        }
        check_length(begun.len(), limits)
    }
}

fn check_length(length: usize, limits: &HeadLimits) -> Result<(), Refusal> {
    if length > limits.max_head {
        return Err(Refusal::over(Status::FIELDS_TOO_LARGE, "the head is too long", "max_head"));
    }
    Ok(())
}

/// As soon as the line is there: an HTTP/0.9 client waits for its answer and sends no empty line.
fn check_request_line(line: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
    if line.len() > limits.max_request_line {
        return Err(Refusal::over(Status::URI_TOO_LONG, "the request line is too long", "max_request_line"));
    }
    match line.len().checked_sub(9).map(|at| &line[at..]) {
        Some([b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            if *major == b'1' {
                return Ok(());
            }
            Err(Refusal::new(Status::VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are spoken here"))
        }
        _ => Err(Refusal::bad("the request line has no HTTP version")),
    }
}
