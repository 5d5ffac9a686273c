//! What a person at work on the applications gets: sources are watched, and what changes is loaded anew while requests wait.
//!
//! * Code and configuration: [`change`](super::change) as by HUP. A failed import takes the old code's place: who has
//!   broken something wants to see it.
//! * Templates: the workers read them anew, by a file that grows.
//! * What browsers load by themselves: nothing but word to pages that wait for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::Master;
use super::change::{Change, Import};
use super::events::Event;
use crate::app::{Broken, DEVELOPMENT};
use crate::config::Configuration;
use crate::server::plan::ToFront;
use crate::supervisor::RuntimeFolder;
use crate::watch::{Notice, Purpose, Watch, WatchSettings};

/// Changed files that are named in the log.
const NAMED: usize = 3;

/// What there is while somebody develops; nothing of it otherwise.
#[derive(Default)]
pub(super) struct Developing {
    /// The Python side of it, and the file that grows when templates are to be read anew.
    tools: Option<(PathBuf, PathBuf)>,
    stamp: Option<File>,
    watch: Option<Watch>,
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
        Ok(Self { tools: Some((program, path)), stamp: Some(stamp), watch: None, number: 0, _terminal: terminal })
    }

    /// What zygotes are told of.
    pub(super) fn tools(&self) -> Option<(&Path, &Path)> {
        self.tools.as_ref().map(|(program, stamp)| (&**program, &**stamp))
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
