//! From a path to the script that a server is to run: as [`cgi`](crate::gateway::Scripts) finds its own, and only what
//! ends as scripts do.
//!
//! A name is found below the root's descriptor before any server hears of it: what is not there, or only looks like a
//! script because of what follows it (`/avatar.png/x.php`), never reaches one.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::known::Known;
use super::settings::ScriptSettings;
use crate::gateway::{FindError, Found, Scripts, path_info};
use crate::handler::{Fault, HandlerError};
use crate::http::{Request, Status};

/// What a server is to do with a request.
#[derive(Debug)]
pub enum Aim {
    /// It answers every path.
    Application,
    /// It runs this script.
    Script(Arc<Aimed>),
}

/// What a route makes of a request.
#[derive(Debug)]
pub enum Choice {
    /// A server is asked.
    Ask(Aim),
    /// No script of this route: the next best route may answer.
    Decline,
    /// One that is not run, or a path that none may be given.
    Refuse(HandlerError),
}

/// A script with its place in the URL.
#[derive(Debug)]
pub struct Aimed {
    /// Its path, as the server calls it.
    pub filename: PathBuf,
    /// The folder of all scripts, as the server calls it.
    pub root: PathBuf,
    /// The part of the path that leads to it.
    pub name: Vec<u8>,
    /// What follows.
    pub path_info: Vec<u8>,
}

/// How a route chooses scripts.
#[derive(Debug)]
pub struct Chooser {
    /// What its route says.
    pub settings: ScriptSettings,
    scripts: Option<Arc<Scripts>>,
    known: Box<Known>,
}

impl Chooser {
    /// A route's. `folder` is the opened root, where it has one.
    pub fn new(settings: ScriptSettings, folder: Option<OwnedFd>) -> Self {
        let scripts = settings.root.clone().zip(folder);
        let scripts = scripts.map(|(root, folder)| Arc::new(Scripts::new(folder, root, Vec::new())));
        Self { settings, scripts, known: Box::default() }
    }

    /// What is to be done with a request.
    pub async fn aim(&self, request: &Request) -> Choice {
        let Some(scripts) = &self.scripts else { return Choice::Ask(Aim::Application) };
        let path = request.path.as_bytes();
        let rest = path.strip_prefix(b"/").unwrap_or(path);
        let at = (&request.notes.script_name, rest);
        if let Some(aimed) = self.known.recall(scripts, at, request.received) {
            return Choice::Ask(Aim::Script(aimed));
        }
        // Apart, so that a page that is known has no room for the search.
        Box::pin(self.search(request, scripts)).await
    }

    /// Looks below the root for what is to be done.
    async fn search(&self, request: &Request, scripts: &Arc<Scripts>) -> Choice {
        let path = request.path.as_bytes();
        let rest = path.strip_prefix(b"/").unwrap_or(path);
        match find(scripts, rest).await {
            Ok(found) if self.is_script(&found.path) => {
                let choice = self.run(request, &found);
                if let Choice::Ask(Aim::Script(aimed)) = &choice {
                    self.known.remember((&request.notes.script_name, rest), &found, aimed, request.received);
                }
                return choice;
            }
            // Another file: what follows it makes no script of it.
            Ok(_) | Err(FindError::Absent) => {}
            Err(FindError::Io { error, .. }) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => {}
            Err(error @ FindError::Hidden(_)) => return refuse(Status::NOT_FOUND, Fault::Client, &error),
            Err(error @ (FindError::Outside { .. } | FindError::NotAFile(_))) => {
                return refuse(Status::NOT_FOUND, Fault::Server, &error);
            }
            Err(error) => return refuse(Status::INTERNAL_SERVER_ERROR, Fault::Server, &error),
        }
        if path.ends_with(b"/") {
            for index in &self.settings.index {
                if let Ok(found) = find(scripts, &[rest, index.as_bytes()].concat()).await
                    && found.length == rest.len() + index.len()
                    && self.is_script(&found.path)
                {
                    return self.stand_in(request, &found);
                }
            }
        }
        match &self.settings.missing {
            Some(missing) => match find(scripts, missing.trim_start_matches('/').as_bytes()).await {
                Ok(found) => self.stand_in(request, &found),
                Err(error) => refuse(Status::INTERNAL_SERVER_ERROR, Fault::Server, &error),
            },
            None => Choice::Decline,
        }
    }

    fn is_script(&self, path: &Path) -> bool {
        path.as_os_str().as_bytes().ends_with(self.settings.split.as_bytes())
    }

    /// A script that the path names.
    fn run(&self, request: &Request, found: &Found) -> Choice {
        let path = request.path.as_bytes();
        let (name, rest) = path.split_at((found.length + 1).min(path.len()));
        let segments = name.split(|&byte| byte == b'/').count() - 1;
        let Some(path_info) = path_info(request, rest, segments) else {
            let message = "an encoded slash in the path would lead upwards";
            return Choice::Refuse(HandlerError::new(Status::NOT_FOUND, Fault::Client, message));
        };
        self.aimed(request, found, path_info)
    }

    /// A script that answers for another name.
    fn stand_in(&self, request: &Request, found: &Found) -> Choice {
        self.aimed(request, found, Vec::new())
    }

    fn aimed(&self, request: &Request, found: &Found, path_info: Vec<u8>) -> Choice {
        let own = self.settings.root.clone().unwrap_or_default();
        let root = self.settings.server_root.clone().unwrap_or_else(|| own.clone());
        let below = found.path.strip_prefix(&own).unwrap_or(&found.path);
        let name = [&request.notes.script_name[..], b"/", below.as_os_str().as_bytes()].concat();
        Choice::Ask(Aim::Script(Arc::new(Aimed { filename: root.join(below), root, name, path_info })))
    }
}

/// A lookup in the kernel's memory, else on the disk, where that may block.
async fn find(scripts: &Arc<Scripts>, rest: &[u8]) -> Result<Found, FindError> {
    match scripts.find(rest, false) {
        Err(FindError::Cold) => {
            let (scripts, rest) = (Arc::clone(scripts), rest.to_vec());
            let found = tokio::task::spawn_blocking(move || scripts.find(&rest, true)).await;
            found.unwrap_or(Err(FindError::Absent))
        }
        found => found,
    }
}

fn refuse(status: Status, fault: Fault, error: &FindError) -> Choice {
    Choice::Refuse(HandlerError::new(status, fault, error.to_string()))
}
