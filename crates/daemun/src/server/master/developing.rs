//! What a person at work on the applications gets: sources are watched, and what changes is loaded anew while requests wait.
//!
//! * Code and configuration: [`change`](super::change) as by HUP. A failed import takes the old code's place: who has
//!   broken something wants to see it.
//! * Templates: the workers read them anew, by a file that grows.
//! * What browsers load by themselves: nothing but word to pages that wait for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::change::{Change, Import};
use super::events::Event;
use super::{Master, lines};
use crate::app::{Broken, DEVELOPMENT, Debugger, DevelopmentTools};
use crate::config::{Configuration, Debugging};
use crate::server::plan::ToFront;
use crate::supervisor::{RuntimeFolder, identity};
use crate::watch::{Notice, Purpose, Watch, WatchSettings};

/// Changed files that are named in the log.
const NAMED: usize = 3;

/// How long a debugger may take until it listens: it starts two interpreters.
const DEBUGGER: Duration = Duration::from_secs(60);

/// What there is while somebody develops; nothing of it otherwise.
#[derive(Default)]
pub(super) struct Developing {
    /// The Python side of it, and the file that grows when templates are to be read anew.
    tools: Option<(PathBuf, PathBuf)>,
    stamp: Option<File>,
    watch: Option<Watch>,
    /// The debugger that workers join, in its own words.
    debugger: Option<String>,
    /// The process that an editor attaches to, where it is ours.
    debugger_pid: Option<i32>,
    /// Which change of pages the last one was.
    number: u64,
    /// As the terminal was: a debugger's prompt that is ended with its worker leaves it without an echo.
    _terminal: Option<Terminal>,
}

struct Terminal(Termios);

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

impl Developing {
    pub(super) fn new(configuration: &Configuration, runtime: &RuntimeFolder) -> io::Result<Self> {
        if configuration.development.is_none() {
            return Ok(Self::default());
        }
        let program = runtime.write_program("daemun_development.py", DEVELOPMENT.as_bytes())?;
        let path = runtime.write_program("templates", b"")?;
        // Root may write what nobody else can; others made it themselves, and open it before it is closed to them.
        let stamp = OpenOptions::new().append(true).open(&path).or_else(|_| reopen(&path))?;
        let terminal = tcgetattr(io::stdin()).ok().map(Terminal);
        Ok(Self { tools: Some((program, path)), stamp: Some(stamp), _terminal: terminal, ..Self::default() })
    }

    /// What zygotes are told of.
    pub(super) fn tools(&self) -> Option<DevelopmentTools<'_>> {
        let (program, stamp) = self.tools.as_ref()?;
        Some(DevelopmentTools { program, stamp, debugger: self.debugger.as_deref() })
    }

    /// Its processes that are there.
    pub(super) fn pids(&self) -> Option<i32> {
        self.debugger_pid
    }

    /// What browsers see of an import that failed. The page knows which change it is of, and loads itself anew after
    /// another.
    pub(super) fn broken(&self, why: &str, page: Option<&str>) -> Broken {
        let number = (self.number + 1).to_string();
        Broken { text: why.to_owned(), page: page.map(|page| page.replace("@change@", &number)) }
    }
}

/// Makes a file of ours writable for us.
fn reopen(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
    OpenOptions::new().append(true).open(path)
}

impl Master {
    /// Sees to the debugger that workers join, where there is to be one. Nothing has been imported yet.
    pub(super) async fn start_debugger(&mut self) -> Result<(), String> {
        let wished = self.configuration.development.as_ref().and_then(|wished| wished.debugger.clone());
        let port = match wished {
            None => return Ok(()),
            Some(Debugging::Joined(wish)) => {
                self.developing.debugger = Some(wish);
                return Ok(());
            }
            Some(Debugging::Listening(port)) => port,
        };
        let failed = |error: &dyn std::fmt::Display| format!("--debugger: {error}");
        // Of several applications the first has the debugger; workers of the others join it all the same.
        let Some(settings) = self.configuration.apps.first() else {
            return Err(failed(&"there is no application"));
        };
        let server = &self.configuration.server;
        let user = settings.user.as_deref().or(server.user.as_deref());
        let group = settings.group.as_deref().or(server.group.as_deref());
        let chosen = identity::of_application(user, group, &settings.directory).map_err(|error| failed(&error))?;
        let mut debugger = Debugger::start(settings, chosen.account.as_ref(), port).map_err(|error| failed(&error))?;
        self.developing.debugger_pid = Some(debugger.pid);
        let listens = tokio::time::timeout(DEBUGGER, debugger.listens()).await;
        let late = |_| format!("it does not listen after {} s", DEBUGGER.as_secs());
        let attachable = listens.map_err(late).and_then(|listens| listens).map_err(|error| failed(&error))?;
        lines::say(format_args!("debugger: an editor attaches to 127.0.0.1:{}", attachable.port));
        self.developing.debugger = Some(attachable.wish);
        let events = self.events.clone();
        tokio::spawn(async move {
            debugger.ended().await;
            // The receiver ends with the server.
            let _ = events.send(Event::DebuggerEnded);
        });
        Ok(())
    }

    /// The editor has ended what it attached to, and means all of it.
    pub(super) async fn debugger_ended(&mut self) -> bool {
        self.developing.debugger_pid = None;
        self.errors.info(format_args!("the debugger has been ended: stopping"));
        self.stop(true).await
    }

    /// A deadline; none where a debugger may have stopped what it is for. What takes long is told in the log.
    pub(super) fn later_unless_developing(&self, pause: Duration, event: Event) {
        if self.configuration.development.is_none() {
            self.later(pause, event);
        }
    }

    /// Watches the sources, where somebody develops and has not said otherwise.
    pub(super) fn watch_sources(&mut self) {
        let Some(settings) = self.configuration.development.as_ref().and_then(|wished| wished.watch.clone()) else {
            return;
        };
        let events = self.events.clone();
        match Watch::start(settings, move |notice| events.send(Event::Sources(notice)).is_ok()) {
            Ok(watch) => self.developing.watch = Some(watch),
            Err(error) => self.errors.error(format_args!("sources are not watched: {error}")),
        }
    }

    /// Watches what a change has brought from now on.
    pub(super) fn watch_also(&self, change: &Change) {
        let wished = change.configuration.development.as_ref().and_then(|wished| wished.watch.clone());
        let (Some(watch), Some(mut settings)) = (&self.developing.watch, wished) else { return };
        for new in change.apps.values() {
            let Import::Done(ready) = &new.import else {
                // Where they were is not known now, and the mend may be there.
                return;
            };
            settings.folders.extend(ready.sources.iter().cloned());
            settings.templates.extend(ready.templates.iter().cloned());
        }
        watch.change(WatchSettings { ..settings });
    }

    pub(super) async fn sources_changed(&mut self, notice: Notice) {
        match notice {
            Notice::Trouble(text) => self.errors.warning(format_args!("{text}")),
            Notice::Begun => self.tell_front(ToFront::Hold(true)).await,
            Notice::Ended(Purpose::Code, paths) => {
                self.errors.info(format_args!("{} changed: loading the application anew", names(&paths)));
                self.reload().await;
            }
            Notice::Ended(purpose, paths) => {
                if purpose == Purpose::Template {
                    self.errors.info(format_args!("{} changed: templates are read anew", names(&paths)));
                    if let Some(stamp) = &mut self.developing.stamp
                        && let Err(error) = stamp.write_all(b".")
                    {
                        self.errors.error(format_args!("workers cannot be told of changed templates: {error}"));
                    }
                }
                if self.change.is_none() {
                    self.pages_changed().await;
                    self.release().await;
                }
            }
        }
    }

    /// Pages that wait for a change load themselves anew.
    pub(super) async fn pages_changed(&mut self) {
        if self.configuration.development.is_some() {
            self.developing.number += 1;
            self.tell_front(ToFront::Changed(self.developing.number)).await;
        }
    }

    /// Requests wait no longer.
    pub(super) async fn release(&mut self) {
        if self.configuration.development.is_some() && self.change.is_none() {
            self.tell_front(ToFront::Hold(false)).await;
        }
    }
}

/// The first of the changed files, as they lie below where we were started.
fn names(paths: &[PathBuf]) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let named: Vec<String> =
        paths.iter().take(NAMED).map(|path| path.strip_prefix(&here).unwrap_or(path).display().to_string()).collect();
    let more = paths.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}
