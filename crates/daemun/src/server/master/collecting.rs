//! `--collect`: static files are collected before the first change begins.

use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::death::How;
use super::events::Event;
use super::{Lifeline, Master, lines};
use crate::django::collect::{self, Options, Order};
use crate::supervisor::identity;
use crate::sys;

/// How long an application's files may take: tens of thousands of them on a slow disk.
const DEADLINE: Duration = Duration::from_secs(600);

/// Why there is nothing to serve.
pub(super) enum NotCollected {
    /// A signal asked for the end.
    Stopped,
    /// It failed.
    Failed(String),
}

impl Master {
    /// Collects the static files of each application that asks for it, one after the other. The main loop does not run
    /// yet: what happens meanwhile and does not concern this is kept for it.
    pub(super) async fn collect(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) -> Result<(), NotCollected> {
        let server = self.configuration.server.clone();
        let apps = self.configuration.apps.clone();
        for settings in apps.into_iter().filter(|app| app.collect && app.django) {
            let failed = |error: String| NotCollected::Failed(format!("{}: {error}", settings.name));
            let user = settings.user.as_deref().or(server.user.as_deref());
            let group = settings.group.as_deref().or(server.group.as_deref());
            let chosen = identity::of_application(user, group, &settings.directory);
            let account = chosen.map_err(|error| failed(error.to_string()))?.account;
            let lifeline = Lifeline::new(account.as_ref()).map_err(|error| failed(error.to_string()))?;
            lines::say(format_args!("{}: collecting static files", settings.name));
            let name = settings.name.clone();
            let failed = |error: String| NotCollected::Failed(format!("{name}: {error}"));
            let options = Options::usual(&settings.directory);
            let order = Order { settings, options };
            // A terminal's Ctrl-C reaches us, and we end it.
            let child = collect::start(&order, account.as_ref(), lifeline.end, true);
            let pid = child.map_err(|error| failed(error.to_string()))?.id() as i32;
            let ended = self.wait_for(pid, events).await;
            match ended.map_err(|error| if error.is_empty() { NotCollected::Stopped } else { failed(error) })? {
                sys::Ended { code: Some(0), .. } => {}
                other => {
                    let how = How(other);
                    return Err(failed(format!(
                        "collect {how}; what it said stands above; nothing is served, since pages would lack \
                         their styles"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Waits for the end of one child; the error is empty where a signal asked for ours.
    async fn wait_for(&mut self, pid: i32, events: &mut mpsc::UnboundedReceiver<Event>) -> Result<sys::Ended, String> {
        let deadline = Instant::now() + DEADLINE;
        let mut kept = Vec::new();
        let result = loop {
            match timeout_at(deadline, events.recv()).await {
                Ok(Some(Event::ChildrenEnded)) => {
                    if let Some(ended) = self.reap_until(pid) {
                        break Ok(ended);
                    }
                }
                Ok(Some(Event::Stop { .. }) | None) => break Err(String::new()),
                Ok(Some(event)) => kept.push(event),
                Err(_) => break Err(format!("collecting has not ended within {} s", DEADLINE.as_secs())),
            }
        };
        if result.is_err() {
            let _ = sys::signal(pid, Signal::KILL);
        }
        for event in kept {
            // We hold the receiver.
            let _ = self.events.send(event);
        }
        result
    }
}
