//! The error log: what an operator should know, one line each.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use super::escape::push_escaped;
use super::settings::Level;
use super::time::rfc3339;
use super::writer::LogWriter;

/// The error log. A clone writes to the same place.
#[derive(Clone)]
pub struct ErrorLogger {
    writer: Option<LogWriter>,
    level: Level,
}

impl ErrorLogger {
    /// A log that writes lines of at least this importance to `sink`.
    pub fn start(sink: OwnedFd, level: Level) -> io::Result<Self> {
        let report = |lost| {
            Some(make_line(Level::Error, &format_args!("{lost} lines of the error log were lost: nobody took them")))
        };
        Ok(Self { writer: Some(LogWriter::start("error-log", sink, report)?), level })
    }

    /// A log that writes nothing.
    pub fn off() -> Self {
        Self { writer: None, level: Level::Error }
    }

    /// Writes a line, for instance `log(Level::Error, format_args!("{path}: {error}"))`. Control characters in it are
    /// escaped: messages quote what clients sent.
    pub fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        if let Some(writer) = self.writer.as_ref().filter(|_| level <= self.level) {
            writer.push(&make_line(level, &message));
        }
    }

    /// Something failed.
    pub fn error(&self, message: fmt::Arguments<'_>) {
        self.log(Level::Error, message);
    }

    /// Something will fail, or was refused.
    pub fn warning(&self, message: fmt::Arguments<'_>) {
        self.log(Level::Warning, message);
    }

    /// Something happened.
    pub fn info(&self, message: fmt::Arguments<'_>) {
        self.log(Level::Info, message);
    }

    /// A step of ours.
    pub fn debug(&self, message: fmt::Arguments<'_>) {
        self.log(Level::Debug, message);
    }

    /// Something failed, with a text of several lines, such as a traceback: each becomes a line of the log.
    pub fn error_lines(&self, text: &str) {
        for line in text.lines() {
            self.error(format_args!("{line}"));
        }
    }

    /// Writes to another descriptor from now on.
    pub fn reopen(&self, sink: OwnedFd) {
        if let Some(writer) = &self.writer {
            writer.reopen(sink);
        }
    }

    /// Waits until everything is written, at most this long. True if nothing was left.
    pub fn close(&self, within: Duration) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.close(within))
    }
}

fn make_line(level: Level, message: &dyn fmt::Display) -> Vec<u8> {
    let name = match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
    };
    let mut line = format!("{} {name}: ", rfc3339(SystemTime::now())).into_bytes();
    // Only what would break the line: text in any language and quotes stay readable.
    for part in message.to_string().split_inclusive(char::is_control) {
        let end =
            part.char_indices().next_back().filter(|(_, last)| last.is_control()).map_or(part.len(), |(at, _)| at);
        line.extend_from_slice(&part.as_bytes()[..end]);
        push_escaped(&mut line, &part.as_bytes()[end..]);
    }
    line.push(b'\n');
    line
}
