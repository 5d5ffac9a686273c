//! The groups of servers that routes lead to: made for a plan, put to use at the switch, kept while they are in it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::telemetry::ErrorLogger;
use crate::upstream::{Group, Serving, UpstreamSettings};

/// Groups by name.
pub(super) type Groups = BTreeMap<String, Arc<Group>>;

/// What is being served and what waits for the switch.
#[derive(Default)]
pub(super) struct Upstreams {
    groups: Groups,
    prepared: Vec<(Arc<Group>, Option<Serving>)>,
}

impl Upstreams {
    /// Makes ready what `wanted` needs, beside what is being served: a name that is known keeps its group.
    pub(super) fn prepare(
        &mut self,
        wanted: &[UpstreamSettings],
        (event_loop, errors): (&Handle, &ErrorLogger),
    ) -> io::Result<Groups> {
        self.prepared.clear();
        for settings in wanted {
            let wrong = |message| io::Error::other(format!("[upstream.{}]: {message}", settings.name));
            let made = if let Some(group) = self.groups.get(&settings.name) {
                (Arc::clone(group), Some(group.prepare(settings.clone()).map_err(wrong)?))
            } else {
                let errors = errors.clone();
                let tell = Arc::new(move |message: &str| errors.warning(format_args!("{message}")));
                let group = Group::new(settings.clone(), tell).map_err(wrong)?;
                event_loop.spawn(Group::watch(Arc::downgrade(&group)));
                (group, None)
            };
            self.prepared.push(made);
        }
        Ok(self.prepared.iter().map(|(group, _)| (group.name().to_owned(), Arc::clone(group))).collect())
    }

    /// Serves what was prepared. A group that is gone ends with its last request.
    pub(super) fn switch(&mut self) {
        self.groups.clear();
        for (group, serving) in self.prepared.drain(..) {
            if let Some(serving) = serving {
                group.update(serving);
            }
            self.groups.insert(group.name().to_owned(), group);
        }
    }

    /// What is being served.
    pub(super) fn groups(&self) -> Groups {
        self.groups.clone()
    }

    /// Has a server get nothing new until the next reload: the servers that were meant, and all that there are.
    pub(super) fn drain(&self, upstream: &str, server: &str) -> (Vec<String>, Vec<String>) {
        let Some(group) = self.groups.get(upstream) else { return (Vec::new(), Vec::new()) };
        (group.drain(server, true), group.status().into_iter().map(|server| server.url).collect())
    }
}
