//! Listening sockets that were passed to us: by systemd, or by the program before this one.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::net::sockopt;

use super::{Address, Bound, ListenerSettings, Role};

/// Sockets of one address.
#[derive(Debug)]
pub struct Handed {
    /// As it was asked for when it was bound.
    pub asked: Address,
    /// Where it listens.
    pub address: Address,
    /// What it was for; `None`: whoever passed it did not say.
    pub role: Option<Role>,
    /// Whether the file of a Unix socket is ours to remove.
    pub is_ours: bool,
    /// The sockets.
    pub sockets: Vec<OwnedFd>,
}

/// The first descriptor that systemd passes (sd_listen_fds(3)).
const FIRST: i32 = 3;

/// More than that nobody passes; a wrong number must not make us close everything.
const MOST: i32 = 128;

impl Handed {
    /// What systemd has passed to this very process (`LISTEN_PID`, `LISTEN_FDS`). Call it once, before other descriptors
    /// are opened.
    pub fn from_systemd() -> Vec<Self> {
        let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<i64>().ok());
        if variable("LISTEN_PID") != Some(i64::from(std::process::id())) {
            return Vec::new();
        }
        let count = variable("LISTEN_FDS").unwrap_or_default().clamp(0, MOST.into()) as i32;
        (FIRST..FIRST + count).filter_map(Self::inherited).collect()
    }

    /// The listening socket of this number.
    fn inherited(number: i32) -> Option<Self> {
        let socket = crate::sys::inherited(number).ok()?;
        if !sockopt::socket_acceptconn(&socket).unwrap_or(false) {
            return None;
        }
        rustix::io::ioctl_fionbio(socket.as_fd(), true).ok()?;
        let address = address_of(&socket)?;
        Some(Self { asked: Address::Inherited(number), address, role: None, is_ours: false, sockets: vec![socket] })
    }

    /// Whether this is what `settings` asks for.
    pub fn serves(&self, settings: &ListenerSettings) -> bool {
        let role = self.role.is_none_or(|role| role == settings.role);
        role && (self.asked == settings.address || self.address == settings.address)
    }

    /// As bound for these settings. The sockets stay here too, for the next try.
    pub fn bound(&self, settings: &ListenerSettings) -> std::io::Result<Bound> {
        let sockets = self.sockets.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>()?;
        Ok(Bound { settings: settings.clone(), address: self.address.clone(), is_ours: self.is_ours, sockets })
    }
}

fn address_of(socket: &OwnedFd) -> Option<Address> {
    let found = rustix::net::getsockname(socket).ok()?;
    if let Ok(address) = SocketAddr::try_from(found.clone()) {
        return Some(Address::Tcp(address));
    }
    let unix = rustix::net::SocketAddrUnix::try_from(found).ok()?;
    let path = unix.path()?;
    Some(Address::Unix(PathBuf::from(std::ffi::OsStr::from_bytes(path.to_bytes()))))
}
