//! Which program answers a request, if any: what the handler runs, and what `daemun explain` tells of it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::faults;
use super::invocation::{Invocation, interpreter_for};
use super::settings::{CgiSettings, find_program};
use crate::gateway::{FindError, Found, Scripts, path_info};
use crate::handler::{Fault, HandlerError};
use crate::http::{Request, Status};

/// What a request leads to.
#[derive(Debug)]
pub enum Way {
    /// This program.
    Run(Box<Invocation>),
    /// No script of this route: the next best route may answer.
    Decline,
    /// A script that is not run, or a path that none may be given.
    Refuse(HandlerError),
}

/// How a CGI route chooses.
#[derive(Debug)]
pub struct Choice {
    pub(super) settings: Arc<CgiSettings>,
    scripts: Option<Arc<Scripts>>,
    /// Whether the route's path is exact: then nothing of it is `PATH_INFO`.
    is_exact: bool,
}

impl Choice {
    /// A route's. `folder` is the opened root, where it has one; `is_exact` says that its path has no `*`.
    pub fn new(mut settings: CgiSettings, folder: Option<OwnedFd>, is_exact: bool) -> Self {
        for (_, command) in &mut settings.interpreters {
            resolve(command);
        }
        resolve(&mut settings.program);
        let owners = std::mem::take(&mut settings.owners);
        let scripts = match settings.script_root() {
            Some(root) => folder.map(|folder| Arc::new(Scripts::new(folder, root.to_owned(), owners))),
            None => None,
        };
        Self { settings: Arc::new(settings), scripts, is_exact }
    }

    /// What it was made of, with programs at their places.
    pub fn settings(&self) -> &CgiSettings {
        &self.settings
    }

    /// Which program answers, if any.
    pub async fn way(&self, request: &Request) -> Way {
        let path = request.path.as_bytes();
        if !self.settings.program.is_empty() {
            let length = if self.is_exact { path.len() } else { request.prefix_length.saturating_sub(1) };
            return self.invoke(request, length, None);
        }
        let Some(scripts) = &self.scripts else { return Way::Decline };
        let rest = path.get(request.prefix_length..).unwrap_or_default();
        let found = match scripts.find(rest, false) {
            Err(FindError::Cold) => {
                let (scripts, rest) = (Arc::clone(scripts), rest.to_vec());
                let found = tokio::task::spawn_blocking(move || scripts.find(&rest, true)).await;
                found.unwrap_or(Err(FindError::Absent))
            }
            found => found,
        };
        match found {
            Ok(found) => self.invoke(request, request.prefix_length + found.length, Some(found)),
            Err(FindError::Absent) => Way::Decline,
            Err(error @ FindError::Hidden(_)) => {
                Way::Refuse(HandlerError::new(Status::NOT_FOUND, Fault::Client, error.to_string()))
            }
            Err(error @ (FindError::Outside { .. } | FindError::NotAFile(_))) => {
                Way::Refuse(HandlerError::new(Status::NOT_FOUND, Fault::Server, error.to_string()))
            }
            Err(FindError::Io { error, .. }) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => Way::Decline,
            Err(error) => {
                Way::Refuse(HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Server, error.to_string()))
            }
        }
    }

    /// A program whose part of the path has `length` bytes.
    fn invoke(&self, request: &Request, length: usize, found: Option<Found>) -> Way {
        let path = request.path.as_bytes();
        let (name, rest) = path.split_at(length.min(path.len()));
        let segments = name.split(|&byte| byte == b'/').count() - 1;
        let Some(path_info) = path_info(request, rest, segments) else {
            let message = "an encoded slash in the path would lead upwards";
            return Way::Refuse(HandlerError::new(Status::NOT_FOUND, Fault::Client, message));
        };
        let name = [&request.notes.script_name[..], name].concat();
        let Some(found) = found else {
            let script = self.settings.program.first().map(PathBuf::from).unwrap_or_default();
            let interpreter = self.settings.program.clone();
            let invocation = Invocation { script, interpreter, is_script: false, name, path_info, reuse: false };
            return Way::Run(Box::new(invocation));
        };
        let mut interpreter = interpreter_for(&self.settings, &found.path).unwrap_or_default().to_vec();
        if interpreter.is_empty() && !found.is_executable {
            let message = faults::ScriptFault::NotExecutable.told(&found.path);
            return Way::Refuse(HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Server, message));
        }
        let mut reuse = false;
        if self.settings.reuse && interpreter.is_empty() && self.is_python(&found.path) {
            let python = self.settings.profile.reuse.as_ref().map(|reuse| reuse.python.display().to_string());
            reuse = python.is_some();
            interpreter.extend(python);
        }
        let invocation = Invocation { script: found.path, interpreter, is_script: true, name, path_info, reuse };
        Way::Run(Box::new(invocation))
    }

    /// How a script begins. Only asked for where something went wrong, or what runs it depends on it.
    pub(super) fn beginning(&self, script: &Path) -> Option<Vec<u8>> {
        let file = self.scripts.as_ref()?.open_found(script).ok()?;
        faults::read_beginning(file).ok()
    }

    fn is_python(&self, script: &Path) -> bool {
        faults::is_python(script, || self.beginning(script).ok_or_else(|| std::io::ErrorKind::NotFound.into()))
    }
}

/// Gives the program's place for its name. One that is not there stays as it is: each request will say so.
fn resolve(command: &mut [String]) {
    if let Some(name) = command.first_mut()
        && let Some(path) = find_program(name)
    {
        *name = path.to_string_lossy().into_owned();
    }
}
