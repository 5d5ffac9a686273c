//! Listening sockets of a change: bound before anything is built, and gone without a trace if it does not come through.

use super::Master;
use crate::config::Configuration;
use crate::listener::{self, Address, BindError, Bound, Handed, ListenerSettings};

/// Sockets that a change brings. Files of Unix sockets that are not kept are removed with the value.
pub(super) struct Fresh {
    /// Bound anew.
    made: Vec<Bound>,
    /// Sockets that are served already, under other settings.
    adopted: Vec<Bound>,
}

impl Fresh {
    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Bound> {
        self.made.iter().chain(&self.adopted)
    }

    /// The change has come through.
    pub(super) fn keep(mut self) -> (Vec<Bound>, Vec<Bound>) {
        (std::mem::take(&mut self.made), std::mem::take(&mut self.adopted))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.made.iter().for_each(Bound::remove_file);
    }
}

impl Master {
    /// Binds what the configuration asks for and nobody listens on yet.
    pub(super) fn bind_new(&self, configuration: &Configuration) -> Result<Fresh, String> {
        let event_loops = configuration.server.event_loops.max(1);
        let mut handed: Vec<&Handed> = self.handed.iter().collect();
        let mut fresh = Fresh { made: Vec::new(), adopted: Vec::new() };
        for settings in configuration.server.all_listeners() {
            if self.bound.iter().any(|old| &old.settings == settings) {
                continue;
            }
            let fault = |error: BindError| self.explain(settings, &error);
            if let Some(old) = self.same_address(settings) {
                if old.settings.tls != settings.tls {
                    let address = &settings.address;
                    return Err(format!("{address}: a change between http and https takes effect with the next start"));
                }
                fresh.adopted.push(old.adopt(settings).map_err(fault)?);
            } else if let Some(at) = handed.iter().position(|handed| handed.serves(settings)) {
                // Two listeners on any port are two.
                let bound =
                    handed.remove(at).bound(settings).map_err(|error| format!("{}: {error}", settings.address))?;
                fresh.adopted.push(bound);
            } else {
                fresh.made.push(listener::bind(settings, event_loops).map_err(fault)?);
            }
        }
        Ok(fresh)
    }

    /// What listens on this address already, under other settings. A port that the kernel chose is nobody else's.
    fn same_address(&self, settings: &ListenerSettings) -> Option<&Bound> {
        let any_port = matches!(settings.address, Address::Tcp(address) if address.port() == 0);
        self.bound.iter().find(|old| !any_port && old.settings.address == settings.address)
    }

    /// Where it is we ourselves who are in the way, that is said.
    fn explain(&self, settings: &ListenerSettings, error: &BindError) -> String {
        let (BindError::InUse { .. }, Address::Tcp(wanted)) = (error, &settings.address) else {
            return error.to_string();
        };
        let overlaps = |old: &&Bound| {
            matches!(old.address, Address::Tcp(address) if address.port() == wanted.port()
                && (address.ip().is_unspecified() || wanted.ip().is_unspecified()))
        };
        match self.bound.iter().find(overlaps) {
            Some(old) => format!(
                "{wanted} overlaps {}, on which this server listens; going from one to the other without refusing a \
                 connection is not possible: choose another port, or restart",
                old.address
            ),
            None => error.to_string(),
        }
    }

    /// Takes the sockets of a change that has come through; what is no longer listened on goes.
    pub(super) fn take_over(&mut self, fresh: Fresh, configuration: &Configuration) {
        let (made, adopted) = fresh.keep();
        for bound in &adopted {
            if let Err(error) = bound.apply_access() {
                self.errors.error(format_args!("{error}"));
            }
        }
        let stays = |old: &Bound| configuration.server.all_listeners().any(|settings| settings == &old.settings);
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.bound).into_iter().partition(stays);
        self.bound = kept;
        self.bound.extend(made);
        self.bound.extend(adopted);
        let still = |gone: &Bound| self.bound.iter().any(|bound| bound.address == gone.address);
        gone.iter().filter(|gone| !still(gone)).for_each(Bound::remove_file);
        for unused in self.handed.drain(..) {
            if configuration.server.all_listeners().any(|settings| unused.serves(settings)) {
                continue;
            }
            self.errors.warning(format_args!("a socket on {} was passed, but no listener is for it", unused.address));
        }
    }
}
