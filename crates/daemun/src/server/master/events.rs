//! What the supervisor waits for.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::app::ZygoteMessage;
use crate::certifier::FromCertifier;
use crate::control::Asked;
use crate::server::plan::FromFront;
use crate::watch::Notice;

/// Something that happened.
pub(super) enum Event {
    /// HUP.
    Reload,
    /// USR1.
    Reopen,
    /// TERM, or INT (`at_once`: without the delay, and a second one at once).
    Stop {
        /// INT.
        at_once: bool,
    },
    /// `drain_delay` is over.
    Drain,
    /// `grace` is over.
    GraceOver,
    /// CHLD: at least one child has ended.
    ChildrenEnded,
    /// The front of this epoch said something, or (`None`) is gone.
    Front(u64, Option<FromFront>),
    /// The zygote of an application's generation said something, or (`None`) is gone.
    Zygote(String, u64, Option<ZygoteMessage>),
    /// What this process says can no longer be read, for this reason.
    Unheard(i32, String),
    /// A worker of this generation is due.
    Fork(String, u64),
    /// A zygote is due.
    RestartZygote(String),
    /// The front is due.
    RestartFront,
    /// The launcher is due.
    RestartLauncher,
    /// A transformer is due.
    RestartTransformer,
    /// The workers of this change should be there.
    ConnectDeadline(u64),
    /// The imports of this change should be done.
    ImportDeadline(u64),
    /// This process should have ended.
    Overdue(i32),
    /// The front has had its time to say what this worker, which has ended, was serving.
    WordsDeadline(String, u32),
    /// Sources have changed, or are about to.
    Sources(Notice),
    /// The process that an editor attaches to is gone.
    DebuggerEnded,
    /// Requests wait for nothing any more.
    Release,
    /// Folders may have appeared or been replaced.
    LookForRoots,
    /// The service manager wants a sign of life.
    Watchdog,
    /// The pause is over after the end of a program that listens here.
    Respawn(std::path::PathBuf),
    /// USR2.
    Upgrade,
    /// The front before the last upgrade is to stop accepting.
    DrainOld,
    /// It has ended.
    OldEnded,
    /// It has had its time.
    OldOverdue,
    /// Somebody asks on the control socket.
    Asked(Asked),
    /// The front has not answered this question.
    ReportLate(u64),
    /// The front wants to know how all is, for whoever asked it.
    StatusWanted(u64),
    /// What a thread does, for the front.
    StackTold(u64, Option<String>),
    /// Certificates may have been replaced.
    LookForCertificates,
    /// A certificate may be due, if this is still the timer that counts.
    Certify(u64),
    /// The certifier with this errand said something, or (`None`) is gone.
    Certifier(u64, Option<FromCertifier>),
    /// This errand should be over.
    ErrandOverdue(u64),
    /// Workers may be too old, too large or too many.
    LookAtWorkers,
    /// A worker of a change under way, of this generation, has found itself unfit to serve, for this reason.
    Unfit(u64, String),
    /// TTIN.
    WorkerMore,
    /// TTOU.
    WorkerLess,
}

/// Turns signals into events.
pub(super) fn watch_signals(events: &mpsc::UnboundedSender<Event>) -> io::Result<()> {
    let kinds: [(SignalKind, fn() -> Event); 9] = [
        (SignalKind::hangup(), || Event::Reload),
        (SignalKind::user_defined1(), || Event::Reopen),
        (SignalKind::user_defined2(), || Event::Upgrade),
        (SignalKind::terminate(), || Event::Stop { at_once: false }),
        (SignalKind::interrupt(), || Event::Stop { at_once: true }),
        (SignalKind::quit(), || Event::Stop { at_once: true }),
        (SignalKind::child(), || Event::ChildrenEnded),
        (SignalKind::from_raw(libc::SIGTTIN), || Event::WorkerMore),
        (SignalKind::from_raw(libc::SIGTTOU), || Event::WorkerLess),
    ];
    for (kind, event) in kinds {
        let signals = signal(kind)?;
        tokio::spawn(forward(signals, events.clone(), event));
    }
    Ok(())
}

async fn forward(mut signals: Signal, events: mpsc::UnboundedSender<Event>, event: fn() -> Event) {
    while signals.recv().await.is_some() {
        if events.send(event()).is_err() {
            return;
        }
    }
}

/// Lets an event come after a pause.
pub(super) fn later(events: &mpsc::UnboundedSender<Event>, pause: Duration, event: Event) {
    let events = events.clone();
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        // The receiver ends with the server.
        let _ = events.send(event);
    });
}
