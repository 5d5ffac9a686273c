//! Telling systemd how we are (sd_notify(3)). Without systemd nothing is told.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager, where there is one.
#[derive(Debug)]
pub struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let manager = variable("NOTIFY_SOCKET").and_then(|text| connect(&text));
        // Set for one process: for whoever the service manager has started.
        let for_us = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let micros =
            variable("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|&micros| for_us && micros > 0);
        let watchdog = micros.filter(|_| manager.is_some()).map(|micros| Duration::from_micros(micros) / 2);
        Self { manager, watchdog }
    }

    /// How often the watchdog wants a sign of life: twice in its time.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Requests are answered.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nMAINPID={}\nSTATUS={}", std::process::id(), one_line(status)));
    }

    /// Something is being replaced; [`Notify::ready`] follows, whatever comes of it.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing what is in flight");
    }

    /// We are alive.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, text: &str) {
        if let Some((socket, manager)) = &self.manager {
            // A manager that is gone, or too busy to listen, cannot be helped.
            let _ = socket.send_to_addr(text.as_bytes(), manager);
        }
    }
}

/// A path, or a name without a file behind `@`.
fn connect(text: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let manager = match text.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok()?,
        None => SocketAddr::from_pathname(text).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, manager))
}

fn one_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
