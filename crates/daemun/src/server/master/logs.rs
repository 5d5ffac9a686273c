//! The logs' files, opened by the supervisor and handed on.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::telemetry::{ErrorLog, ErrorLogger, Sink, TelemetrySettings};

/// Both logs as descriptors.
pub(super) struct Logs {
    access: OwnedFd,
    error: OwnedFd,
}

impl Logs {
    /// Opens what the settings name.
    pub(super) fn open(settings: &TelemetrySettings) -> Result<Self, String> {
        Ok(Self {
            access: open(&settings.access.sink, std::io::stdout().as_fd())?,
            error: open(&settings.error.sink, std::io::stderr().as_fd())?,
        })
    }

    pub(super) fn access(&self) -> BorrowedFd<'_> {
        self.access.as_fd()
    }

    pub(super) fn error(&self) -> BorrowedFd<'_> {
        self.error.as_fd()
    }

    /// The supervisor's own logger.
    pub(super) fn error_logger(&self, settings: &ErrorLog) -> Result<ErrorLogger, String> {
        if settings.sink == Sink::Off {
            return Ok(ErrorLogger::off());
        }
        let sink = self.error.try_clone().map_err(|error| format!("error log: {error}"))?;
        ErrorLogger::start(sink, settings.level).map_err(|error| format!("error log: {error}"))
    }
}

fn open(sink: &Sink, standard: BorrowedFd<'_>) -> Result<OwnedFd, String> {
    let opened = match sink {
        Sink::Standard => standard.try_clone_to_owned(),
        Sink::Off => append(Path::new("/dev/null")),
        Sink::File(path) => append(path),
    };
    let name = match sink {
        Sink::File(path) => path.display().to_string(),
        _ => String::from("standard output or error"),
    };
    opened.map_err(|error| format!("cannot open the log {name}: {error}"))
}

fn append(path: &Path) -> std::io::Result<OwnedFd> {
    Ok(OpenOptions::new().append(true).create(true).mode(0o640).open(path)?.into())
}
