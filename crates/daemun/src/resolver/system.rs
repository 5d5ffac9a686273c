//! What the system says of names: `/etc/hosts` and `/etc/resolv.conf` (hosts(5), resolv.conf(5)).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{NameServer, PORT};

/// Name servers that are asked: as many as the C library takes.
const MOST_SERVERS: usize = 3;

/// Ends that are put to a name: the C library had 6 for long, and Kubernetes writes more.
const MOST_ENDS: usize = 32;

/// What was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct System {
    pub(super) servers: Vec<NameServer>,
    /// How long one question may take.
    pub(super) timeout: Duration,
    /// How often each server is asked.
    pub(super) attempts: u32,
    /// Ends that may be missing from a name.
    search: Vec<String>,
    /// Dots that make a name whole.
    dots: usize,
    /// Whether servers are asked over TCP.
    is_tcp: bool,
    hosts: String,
}

impl Default for System {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            attempts: 2,
            search: Vec::new(),
            dots: 1,
            is_tcp: false,
            hosts: String::new(),
        }
    }
}

impl System {
    /// The files as they are now. One that is not there says nothing.
    pub(super) fn read() -> Self {
        let read = |path: &str| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let mut system = Self::parse(&read("/etc/resolv.conf"));
        system.hosts = read("/etc/hosts");
        system
    }

    /// These servers, and whole names only.
    pub(super) fn of_servers(servers: Vec<NameServer>) -> Self {
        Self { servers, timeout: Duration::from_secs(2), ..Self::default() }
    }

    /// What a name may stand for, the likeliest first.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut names: Vec<String> = self.search.iter().map(|end| format!("{name}.{end}")).collect();
        let is_whole = name.bytes().filter(|&byte| byte == b'.').count() >= self.dots;
        names.insert(if is_whole { 0 } else { names.len() }, name.to_owned());
        names
    }

    /// The addresses of a name that `/etc/hosts` has.
    pub(super) fn hosts(&self, name: &str) -> Option<(Vec<Ipv4Addr>, Vec<Ipv6Addr>)> {
        let name = name.trim_end_matches('.');
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for line in self.hosts.lines() {
            let mut words = without_comment(line, &['#']).split_ascii_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
            if !words.any(|word| word.eq_ignore_ascii_case(name)) {
                continue;
            }
            match address {
                IpAddr::V4(address) if !v4.contains(&address) => v4.push(address),
                IpAddr::V6(address) if !v6.contains(&address) => v6.push(address),
                _ => {}
            }
        }
        (!v4.is_empty() || !v6.is_empty()).then_some((v4, v6))
    }

    fn parse(text: &str) -> Self {
        let mut system = Self::default();
        for line in text.lines() {
            let mut words = without_comment(line, &['#', ';']).split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone behind `%` is for link-local addresses, which name an interface.
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    system
                        .servers
                        .extend(address.map(|ip| NameServer { address: SocketAddr::new(ip, PORT), is_tcp: false }));
                }
                // The last one counts.
                Some("search" | "domain") => {
                    let ends = words.map(|end| end.trim_end_matches('.').to_owned()).filter(|end| !end.is_empty());
                    system.search = ends.take(MOST_ENDS).collect();
                }
                Some("options") => words.for_each(|option| system.option(option)),
                _ => {}
            }
        }
        system.servers.truncate(MOST_SERVERS);
        if system.servers.is_empty() {
            // As the C library has it: one runs here.
            let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
            system.servers.push(NameServer { address, is_tcp: false });
        }
        // Wherever the option stands.
        let is_tcp = system.is_tcp;
        system.servers.iter_mut().for_each(|server| server.is_tcp = is_tcp);
        system
    }

    fn option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let number = value.parse::<u32>().ok();
        match (name, number) {
            ("ndots", Some(dots)) => self.dots = dots.min(15) as usize,
            ("timeout", Some(seconds)) => self.timeout = Duration::from_secs(seconds.clamp(1, 30).into()),
            ("attempts", Some(attempts)) => self.attempts = attempts.clamp(1, 5),
            ("use-vc", _) => self.is_tcp = true,
            _ => {}
        }
    }
}

fn without_comment<'a>(line: &'a str, marks: &[char]) -> &'a str {
    line.find(marks).map_or(line, |at| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_whom_to_ask_and_what_a_name_may_mean() {
        let system = System::parse(
            "# written by a machine\nsearch ns.svc.cluster.local svc.cluster.local. ; more\nnameserver 10.96.0.10\n\
             nameserver fe80::1%eth0\nnameserver 2001:db8::53\noptions ndots:5 timeout:1 attempts:3 rotate\n",
        );
        let servers: Vec<_> = system.servers.iter().map(|server| server.address.to_string()).collect();
        assert_eq!(servers, ["10.96.0.10:53", "[2001:db8::53]:53"]);
        assert_eq!((system.timeout, system.attempts), (Duration::from_secs(1), 3));
        assert_eq!(system.names("app"), ["app.ns.svc.cluster.local", "app.svc.cluster.local", "app"]);
        assert_eq!(system.names("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(system.names("app.internal."), ["app.internal"]);
    }

    #[test]
    fn without_a_file_a_server_on_this_host_is_asked_for_whole_names() {
        let system = System::parse("");
        assert_eq!(system.servers[0].address, "127.0.0.1:53".parse().unwrap());
        assert_eq!(system.names("app"), ["app"]);
    }

    #[test]
    fn a_name_of_the_hosts_file_has_the_addresses_of_every_line_that_names_it() {
        let hosts = "127.0.0.1 localhost\n10.0.0.5 app App.Internal # old: other\n::5 app\n10.0.0.5 app\nwrong app\n";
        let system = System { hosts: hosts.to_owned(), ..System::default() };
        let found = Some((vec!["10.0.0.5".parse().unwrap()], vec!["::5".parse().unwrap()]));
        assert_eq!(system.hosts("app"), found);
        assert_eq!(system.hosts("app.internal."), Some((vec!["10.0.0.5".parse().unwrap()], vec![])));
        assert_eq!(system.hosts("other"), None);
    }
}
