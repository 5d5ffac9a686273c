//! Binding, by the supervisor.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{Address, ListenerSettings, Protocol, holder};
use crate::process::account;

/// Connections that the kernel keeps for us while all event loops are busy. It caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// An address that is being listened on.
#[derive(Debug)]
pub struct Bound {
    /// As it was asked for.
    pub settings: ListenerSettings,
    /// As it came to be: with the real port where 0 was asked for.
    pub address: Address,
    /// Whether the file of a Unix socket is ours to remove.
    pub is_ours: bool,
    /// One socket for each event loop, or a single one where the address allows no more.
    pub sockets: Vec<OwnedFd>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program listens there.
    #[error("{address} is in use by {holder}; stop it or choose another address (`--listen`, `listen`)")]
    InUse {
        /// The address.
        address: Address,
        /// Who, as far as it can be seen.
        holder: String,
    },
    /// The port is below 1024 and we are not root.
    #[error("{0}: ports below 1024 are for root; choose a higher one, or grant CAP_NET_BIND_SERVICE")]
    Privileged(Address),
    /// The address is none of this machine's.
    #[error("{0}: this machine has no such address")]
    NotOurs(Address),
    /// The inherited descriptor is no listening socket.
    #[error("{0} is not a listening socket; whoever starts daemun must pass one")]
    NotListening(Address),
    /// A Unix socket's group does not exist.
    #[error("{0}: {1}")]
    Group(Address, account::AccountError),
    /// Anything else.
    #[error("cannot listen on {0}: {1}")]
    Io(Address, io::Error),
}

impl Bound {
    /// As a browser would be told.
    pub fn url(&self) -> String {
        match &self.address {
            address if self.settings.protocol != Protocol::Http => format!("{}://{address}", self.settings.protocol),
            Address::Tcp(address) if self.settings.tls => format!("https://{address}"),
            Address::Tcp(address) => format!("http://{address}"),
            other => other.to_string(),
        }
    }
}

/// Listens on an address with `event_loops` sockets where it can.
pub fn bind(settings: &ListenerSettings, event_loops: usize) -> Result<Bound, BindError> {
    let (address, sockets) = match &settings.address {
        Address::Tcp(address) => bind_tcp(*address, event_loops)?,
        Address::Unix(path) => (settings.address.clone(), vec![bind_unix(settings, path)?]),
        Address::Inherited(number) => (settings.address.clone(), vec![inherit(&settings.address, *number)?]),
    };
    Ok(Bound { settings: settings.clone(), address, is_ours: true, sockets })
}

fn bind_tcp(wanted: SocketAddr, event_loops: usize) -> Result<(Address, Vec<OwnedFd>), BindError> {
    let fault = |errno: rustix::io::Errno| explain(wanted, errno);
    // Without SO_REUSEPORT: a second server on the same port must not start silently and take half of the traffic.
    let probe = tcp_socket(wanted).map_err(fault)?;
    rustix::net::bind(&probe, &wanted).map_err(fault)?;
    let SocketAddrAny(address) = local_address(&probe).map_err(fault)?;
    if event_loops <= 1 {
        rustix::net::listen(&probe, BACKLOG).map_err(fault)?;
        return Ok((Address::Tcp(address), vec![probe]));
    }
    // Bound but not yet listening: nobody can connect between here and the first real socket.
    drop(probe);
    let mut sockets = Vec::with_capacity(event_loops);
    for _ in 0..event_loops {
        let socket = tcp_socket(address).map_err(fault)?;
        sockopt::set_socket_reuseport(&socket, true).map_err(fault)?;
        rustix::net::bind(&socket, &address).map_err(fault)?;
        sockets.push(socket);
    }
    for socket in &sockets {
        rustix::net::listen(socket, BACKLOG).map_err(fault)?;
    }
    Ok((Address::Tcp(address), sockets))
}

struct SocketAddrAny(SocketAddr);

fn local_address(socket: &OwnedFd) -> Result<SocketAddrAny, rustix::io::Errno> {
    let address = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(address).map(SocketAddrAny)
}

fn tcp_socket(address: SocketAddr) -> Result<OwnedFd, rustix::io::Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart must not wait for connections in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(socket)
}

fn explain(address: SocketAddr, errno: rustix::io::Errno) -> BindError {
    use rustix::io::Errno;
    match errno {
        Errno::ADDRINUSE => {
            let holder = holder::of_tcp(address).unwrap_or_else(|| String::from("another program"));
            BindError::InUse { address: Address::Tcp(address), holder }
        }
        Errno::ACCESS => BindError::Privileged(Address::Tcp(address)),
        Errno::ADDRNOTAVAIL => BindError::NotOurs(Address::Tcp(address)),
        other => BindError::Io(Address::Tcp(address), other.into()),
    }
}

/// A socket file that nobody listens on any more is replaced; a living one names its holder.
fn bind_unix(settings: &ListenerSettings, path: &Path) -> Result<OwnedFd, BindError> {
    let address = || settings.address.clone();
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(BindError::InUse { address: address(), holder: String::from("a server that answers there") });
    }
    let fault = |error: io::Error| BindError::Io(address(), error);
    if std::fs::symlink_metadata(path).is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()))
    {
        std::fs::remove_file(path).map_err(fault)?;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let bound = || -> io::Result<OwnedFd> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
        Ok(socket)
    };
    let gid = group_of(settings)?;
    let socket = bound().map_err(fault)?;
    if let Err(error) = give(path, gid, settings.mode) {
        let _ = std::fs::remove_file(path);
        return Err(fault(error));
    }
    // Only now: nobody can connect before the access bits are right.
    rustix::net::listen(&socket, BACKLOG).map_err(|errno| fault(errno.into()))?;
    Ok(socket)
}

fn group_of(settings: &ListenerSettings) -> Result<Option<u32>, BindError> {
    let found = settings.group.as_deref().map(account::find_group).transpose();
    let found = found.map_err(|error| BindError::Group(settings.address.clone(), error))?;
    Ok(found.map(nix::unistd::Gid::as_raw))
}

fn give(path: &Path, group: Option<u32>, mode: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group)?;
    }
    mode.map_or(Ok(()), |mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
}

impl Bound {
    /// The same sockets under other settings, for a reload that changes what an address is for or who may use it.
    pub fn adopt(&self, settings: &ListenerSettings) -> Result<Self, BindError> {
        group_of(settings)?;
        let sockets = self.sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>();
        let sockets = sockets.map_err(|error| BindError::Io(settings.address.clone(), error))?;
        Ok(Self { settings: settings.clone(), address: self.address.clone(), is_ours: self.is_ours, sockets })
    }

    /// Gives the file of a Unix socket the group and the access bits of the settings; where none are said, those that it
    /// was made with.
    pub fn apply_access(&self) -> Result<(), BindError> {
        let Address::Unix(path) = &self.address else { return Ok(()) };
        if !self.is_ours {
            return Ok(());
        }
        let gid = group_of(&self.settings)?.unwrap_or_else(|| rustix::process::getegid().as_raw());
        let mode = self.settings.mode.unwrap_or_else(|| 0o777 & !crate::sys::umask());
        give(path, Some(gid), Some(mode)).map_err(|error| BindError::Io(self.settings.address.clone(), error))
    }

    /// Removes the file of a Unix socket of ours.
    pub fn remove_file(&self) {
        if let (true, Address::Unix(path)) = (self.is_ours, &self.address) {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn inherit(address: &Address, number: i32) -> Result<OwnedFd, BindError> {
    let fault = |error: io::Error| BindError::Io(address.clone(), error);
    let socket = crate::sys::inherited(number).map_err(fault)?;
    if !sockopt::socket_acceptconn(&socket).unwrap_or(false) {
        return Err(BindError::NotListening(address.clone()));
    }
    rustix::io::ioctl_fionbio(socket.as_fd(), true).map_err(|errno| fault(errno.into()))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(port: u16) -> ListenerSettings {
        ListenerSettings::at(Address::Tcp(([127, 0, 0, 1], port).into()))
    }

    #[test]
    fn a_second_server_on_the_same_port_is_refused_by_the_holders_name() {
        let first = bind(&tcp(0), 2).unwrap();
        assert_eq!(first.sockets.len(), 2);
        let Address::Tcp(address) = first.address else { unreachable!("a TCP address") };
        let error = bind(&tcp(address.port()), 2).unwrap_err().to_string();
        let us = format!("(pid {})", std::process::id());
        assert!(error.contains("is in use by") && error.contains(&us), "{error}");
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let settings = ListenerSettings { mode: Some(0o660), ..ListenerSettings::at(Address::Unix(path.clone())) };
        let first = bind(&settings, 2).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(bind(&settings, 2), Err(BindError::InUse { .. })));
        drop(first);
        bind(&settings, 2).unwrap();
    }
}
