//! Addresses, certificates and limits.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::Examination;
use crate::codes::{Finding, Severity};
use crate::config::Configuration;
use crate::listener::Address;

/// Descriptors that the front needs beside connections: logs, folders, workers.
const BESIDE: u64 = 256;

/// How long common balancers keep an idle connection.
const BALANCER: Duration = Duration::from_secs(60);

/// Checks what the server as a whole needs.
pub(super) fn check(configuration: &Configuration, examination: &mut Examination) {
    let server = &configuration.server;
    examination.run(&["D401", "D402", "D406"]);
    for listener in &server.listeners {
        match &listener.address {
            Address::Tcp(address) => tcp(*address, examination),
            Address::Unix(path) => unix(path, examination),
            Address::Inherited(_) => {}
        }
    }
    if configuration.tls.is_empty() {
        examination.skip(&["D403", "D411"], "there is no certificate");
    } else {
        // Those of the configuration's warnings.
        examination.run(&["D403", "D411"]);
    }
    let (most, needed) = (getrlimit(Resource::Nofile).maximum, server.limits.max_connections as u64);
    if let Some(most) = most.filter(|&most| most < needed + BESIDE) {
        let message = format!("{most} files may be open, and max_connections is {needed}: above that new ones wait");
        examination
            .add(Finding::new("D406", message).mend(format!("ulimit -n {}, LimitNOFILE= in a unit", needed + BESIDE)));
    }
    if server.trusted_proxies.is_empty() {
        examination.skip(&["D412"], "no proxy is trusted");
    } else {
        examination.run(&["D412"]);
        if server.limits.keep_alive <= BALANCER {
            let message = format!(
                "keep_alive is {} s, and balancers keep connections for 60 s",
                server.limits.keep_alive.as_secs()
            );
            examination.add(Finding::new("D412", message).mend("keep_alive = \"75s\""));
        }
    }
}

fn tcp(address: SocketAddr, examination: &mut Examination) {
    let Err(error) = TcpListener::bind(address) else { return };
    let place = address.to_string();
    if error.kind() == ErrorKind::AddrInUse {
        let holder = holder(address.port());
        let who = match &holder {
            Some((name, pid)) => format!("{name} (pid {pid})"),
            None => "another program, of another user".to_owned(),
        };
        let mut finding = Finding::new("D401", format!("{address} is in use by {who}")).at(place, None);
        if holder.is_some_and(|(name, _)| name == "daemun") {
            finding.severity = Severity::Note;
        } else {
            finding = finding.mend("stop that program, or listen elsewhere");
        }
        return examination.add(finding);
    }

    let mut finding = Finding::new("D402", format!("{address} cannot be listened on: {error}")).at(place, None);
    if error.kind() == ErrorKind::PermissionDenied {
        finding = finding.mend("start as root, or let systemd pass the socket");
    }
    examination.add(finding);
}

fn unix(path: &Path, examination: &mut Examination) {
    let place = path.display().to_string();
    if UnixStream::connect(path).is_ok() {
        let finding = Finding::new("D401", format!("unix:{place} is in use by another program"));
        examination.add(finding.at(place, None).mend("stop that program, or listen elsewhere"));
    } else if path.parent().is_some_and(|folder| !folder.is_dir()) {
        let message = format!("unix:{place} cannot be listened on: its folder is not there");
        examination.add(Finding::new("D402", message).at(place, None));
    }
}

/// Name and id of the process that listens on a port, as far as we may look.
fn holder(port: u16) -> Option<(String, u32)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let sockets: Vec<String> = tables.iter().flat_map(|table| inodes(table, port)).collect();
    let links: Vec<String> = sockets.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let descriptors = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        if targets.any(|target| links.iter().any(|link| target == Path::new(link))) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((name.trim().to_owned(), pid));
        }
    }
    None
}

/// The sockets in a table of the kernel that listen on a port.
fn inodes(table: &str, port: u16) -> Vec<String> {
    let end = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // State 0A: it listens.
    let ours = rows.filter(|row| row.len() > 9 && row[1].ends_with(&end) && row[3] == "0A");
    ours.map(|row| row[9].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_on_a_port_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_, pid) = holder(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(pid, std::process::id());
    }
}
