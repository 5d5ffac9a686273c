//! Asking a running server. Blocking: a command has nothing else to do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::message::{Answer, Command, MAX_ANSWER};

/// How long the server may take to say anything. A reload says at once that it has begun; its end is waited for as long
/// as the server lives.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Why a server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens at any of these places.
    #[error("no server is running here; looked at {}", shown(.0))]
    NoServer(Vec<PathBuf>),
    /// Somebody does, but not for us.
    #[error("{0}: {1}; a server can be asked by its own user and by root")]
    Denied(PathBuf, io::Error),
    /// The conversation broke.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// What came is no answer of ours.
    #[error("{0}: the server spoke in a way that this version does not understand: {1}")]
    Answer(PathBuf, serde_json::Error),
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// A conversation: one command, then answers until the last one.
#[derive(Debug)]
pub struct Conversation {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

impl Conversation {
    /// Connects to the first of these sockets that a server listens on.
    pub fn open(candidates: &[PathBuf]) -> Result<Self, AskError> {
        for path in candidates {
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(Self { path: path.clone(), reader: BufReader::new(stream) }),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(AskError::Denied(path.clone(), error));
                }
                Err(_) => {}
            }
        }
        Err(AskError::NoServer(candidates.to_vec()))
    }

    /// Where the server was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says what is wanted.
    pub fn ask(&mut self, command: &Command) -> Result<(), AskError> {
        let mut line = serde_json::to_vec(command).map_err(|error| AskError::Answer(self.path.clone(), error))?;
        line.push(b'\n');
        let failed = |error| AskError::Io(self.path.clone(), error);
        self.reader.get_ref().set_read_timeout(Some(FIRST_WORD)).map_err(failed)?;
        self.reader.get_ref().set_write_timeout(Some(FIRST_WORD)).map_err(failed)?;
        self.reader.get_mut().write_all(&line).map_err(failed)
    }

    /// The next answer; `None` when the server has closed the conversation.
    pub fn hear(&mut self) -> Result<Option<Answer>, AskError> {
        let mut line = Vec::new();
        let failed = |error: io::Error| {
            let error = match error.kind() {
                io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "the server does not answer"),
                _ => error,
            };
            AskError::Io(self.path.clone(), error)
        };
        match (&mut self.reader).take(MAX_ANSWER as u64).read_until(b'\n', &mut line) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            // The server's end may be seen as a reset.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        // From here on it lives, and may take its time.
        self.reader.get_ref().set_read_timeout(None).map_err(failed)?;
        serde_json::from_slice(&line).map(Some).map_err(|error| AskError::Answer(self.path.clone(), error))
    }
}
