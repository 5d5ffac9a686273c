//! What the supervisor and the front say to each other.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::app::{Admission, Broken, PoolFigures, WorkerReport};
use crate::config::{Configuration, HandlerSettings};
use crate::control::message::{ServerStatus, Status, Traffic};
use crate::gateway::{DEFAULT_SPOOL, takes_files};
use crate::listener::{Address, Bound, ListenerSettings};
use crate::static_files::{Root, StaticSettings};
use crate::tls::Material;

/// The supervisor's word.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum ToFront {
    /// Build this, so that workers can connect, but serve what is served. Descriptors: those of [`Plan`].
    Prepare(Box<Plan>),
    /// This worker may connect.
    Expect(String, Admission),
    /// Serve what was prepared, and retire workers of generations before these.
    Switch(BTreeMap<String, u64>),
    /// This application will have no worker, for this reason where somebody develops it.
    GiveUp(String, Option<Broken>),
    /// Let requests for applications wait, or no longer.
    Hold(bool),
    /// Pages are other than they were: the number of this change.
    Changed(u64),
    /// Send nothing more to this worker.
    Retire(String, u32),
    /// Say which workers of this application have had nothing to do for this long.
    WhoIsIdle(String, std::time::Duration),
    /// Send nothing new to this server of this upstream; the number comes back.
    DrainServer(u64, String, String),
    /// Ask clients for close, but go on accepting.
    AskForClose,
    /// Stop accepting, finish what is in flight, retire the workers, end.
    Drain,
    /// This launcher starts CGI programs from now on. Its socket comes along.
    Launcher,
    /// This transformer is free from now on. Its socket comes along.
    Transformer,
    /// The answer to [`FromFront::StatusWanted`].
    Status(u64, Box<Status>),
    /// The answer to [`FromFront::StackWanted`]; nothing where the worker did not say.
    Stack(u64, Option<String>),
    /// The answer to [`FromFront::FoldersWanted`]: those that are there. Their descriptors come along.
    Folders(u64, Vec<PathBuf>),
    /// Tell what was counted; the number comes back.
    Report(u64),
    /// Show these from now on.
    Certificates(Vec<Material>),
    /// Answer these tokens with these texts to an authority that asks for them, and no others; the number comes back.
    Challenges(u64, Vec<(String, String)>),
    /// Write logs to these from now on: access log, then error log, each where it is a file.
    Reopen(bool, bool),
}

/// The front's word.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum FromFront {
    /// What was prepared is being served.
    Serving,
    /// It cannot be: the old goes on.
    Refused(String),
    /// What an authority wants to see is shown: certificates too that were told before.
    Shown(u64),
    /// How is all that the front does not know? The number comes back.
    StatusWanted(u64),
    /// What does this thread do?
    StackWanted {
        /// Comes back.
        number: u64,
        /// The application.
        app: String,
        /// The worker.
        serial: u32,
        /// Its thread.
        thread: u16,
    },
    /// Are these folders of static routes there by now? The number comes back.
    FoldersWanted(u64, Vec<PathBuf>),
    /// The answer to [`ToFront::Report`].
    Report(u64, Box<FrontReport>),
    /// Servers that get nothing new, and all that there are: the answer to [`ToFront::DrainServer`].
    Drained(u64, Vec<String>, Vec<String>),
    /// News of an application's worker.
    Worker(String, WorkerReport),
}

/// What the front knows and the supervisor does not.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct FrontReport {
    pub(super) traffic: Traffic,
    pub(super) pools: BTreeMap<String, PoolFigures>,
    pub(super) upstreams: BTreeMap<String, Vec<ServerStatus>>,
}

/// Everything the front needs. Descriptors come in this order: access log and error log, each where it is a file or
/// standard; the spool folder; the sockets of each listener; the worker socket of each application; the folders that
/// each application may have files sent from; the folder of each root of each static route and of the root of each CGI
/// route that has scripts, and of the root of its `xslt`, in the order of the routes.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Plan {
    pub(super) configuration: Configuration,
    /// Each listener as it was asked for, where it came to be, and with how many sockets.
    pub(super) listeners: Vec<(ListenerSettings, Address, usize)>,
    /// What opens URLs and stacks on the monitor listener.
    pub(super) token: String,
    /// Certificates and keys of the https listeners.
    pub(super) certificates: Vec<Material>,
    /// The roots of static routes, by their number, that have none: not one of them was there.
    pub(super) late: BTreeMap<usize, Vec<Root>>,
}

/// A plan with its descriptors.
pub(super) struct Packed {
    pub(super) plan: Plan,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// What is opened for the front whatever the routes are.
pub(super) struct Openings<'a> {
    pub(super) access_log: BorrowedFd<'a>,
    pub(super) error_log: BorrowedFd<'a>,
    pub(super) bound: &'a [Bound],
    pub(super) token: &'a str,
    pub(super) worker_sockets: Vec<BorrowedFd<'a>>,
    pub(super) certificates: Vec<Material>,
}

/// Opens what `configuration` names. Roots that are not there are left out; the supervisor looks for them again.
pub(super) fn pack(mut configuration: Configuration, openings: &Openings<'_>) -> std::io::Result<Packed> {
    let mut descriptors = Vec::new();
    let mut add = |descriptor: BorrowedFd<'_>| descriptor.try_clone_to_owned().map(|owned| descriptors.push(owned));
    add(openings.access_log)?;
    add(openings.error_log)?;
    choose_spool(&mut configuration.server.spool);
    let spool = open_folder(&configuration.server.spool).map_err(|error| {
        std::io::Error::new(error.kind(), format!("spool {}: {error}", configuration.server.spool.display()))
    })?;
    add(spool.as_fd())?;
    for socket in openings.bound.iter().flat_map(|bound| &bound.sockets) {
        add(socket.as_fd())?;
    }
    for socket in &openings.worker_sockets {
        add(*socket)?;
    }
    for app in &mut configuration.apps {
        descriptors.extend(open_sent(&mut app.sendfile));
    }
    let mut late = BTreeMap::new();
    for (number, route) in configuration.routes.iter_mut().enumerate() {
        match &mut route.handler {
            HandlerSettings::Static(settings) => {
                let roots = settings.roots.clone();
                descriptors.extend(open_roots(settings));
                if settings.roots.is_empty() && !roots.is_empty() {
                    late.insert(number, roots);
                }
            }
            HandlerSettings::Cgi(settings) => {
                if let Some(root) = settings.script_root() {
                    descriptors.push(open_folder(root).map_err(|error| {
                        std::io::Error::new(error.kind(), format!("CGI root {}: {error}", root.display()))
                    })?);
                }
                descriptors.extend(open_sent(&mut settings.sendfile));
            }
            HandlerSettings::Scripts(settings) => {
                if let Some(root) = &settings.root {
                    descriptors.push(open_folder(root).map_err(|error| {
                        std::io::Error::new(error.kind(), format!("root of scripts {}: {error}", root.display()))
                    })?);
                }
            }
            _ => {}
        }
        if let Some(xslt) = &route.filters.xslt {
            let root = &xslt.value.root;
            descriptors.push(open_folder(root).map_err(|error| {
                std::io::Error::new(error.kind(), format!("root of `xslt` {}: {error}", root.display()))
            })?);
        }
    }
    let listeners = openings.bound.iter();
    let listeners =
        listeners.map(|bound| (bound.settings.clone(), bound.address.clone(), bound.sockets.len())).collect();
    let (token, certificates) = (openings.token.to_owned(), openings.certificates.clone());
    Ok(Packed { plan: Plan { configuration, listeners, token, certificates, late }, descriptors })
}

/// Where nobody has named another folder and this one takes no files, as in a container whose root cannot be written, the
/// first that does, and else one that is always there: the front then says what it does instead.
fn choose_spool(spool: &mut PathBuf) {
    if *spool == Path::new(DEFAULT_SPOOL) && !takes_files(spool) {
        let others = ["/tmp", "/dev/shm"].map(Path::new);
        let found = others.into_iter().find(|path| takes_files(path));
        *spool = found.or(Some(&**spool).filter(|path| path.is_dir())).unwrap_or(Path::new("/")).to_path_buf();
    }
}

/// Folders that files are sent from for a program; those that are not there are left out.
fn open_sent(sendfile: &mut Vec<(String, PathBuf)>) -> Vec<OwnedFd> {
    let mut opened = Vec::new();
    sendfile.retain(|(_, path)| open_folder(path).map(|folder| opened.push(folder)).is_ok());
    opened
}

fn open_roots(settings: &mut StaticSettings) -> Vec<OwnedFd> {
    let mut opened = Vec::new();
    settings.roots.retain(|root| match open_folder(&root.path) {
        Ok(folder) => {
            opened.push(folder);
            true
        }
        Err(_) => false,
    });
    opened
}

/// Opens a folder for looking names up below it. Not readable itself: the front never lists it through this.
pub(super) fn open_folder(path: &Path) -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
