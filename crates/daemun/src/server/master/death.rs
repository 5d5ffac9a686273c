//! How a worker ended, in words: the exit code, the signal or the OOM killer, and what it was doing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::{LastWords, Worker};
use crate::sys::Ended;

/// How a process ended, in words.
pub(super) struct How(pub(super) Ended);

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ended { code: Some(code), .. } => write!(f, "exited with code {code}"),
            Ended { signal: Some(number), .. } => {
                let name = signal_name(number);
                write!(f, "was killed by signal {number}{name}")
            }
            Ended { .. } => f.write_str("ended"),
        }
    }
}

/// ` (SIGKILL)` for 9; nothing for a signal without a name.
fn signal_name(number: i32) -> String {
    let debug = Signal::from_named_raw(number).map(|signal| format!("{signal:?}")).unwrap_or_default();
    let letters: String =
        debug.rsplit("::").next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
    if letters.is_empty() { letters } else { format!(" (SIG{})", letters.to_ascii_uppercase()) }
}

/// What is known about a worker that is gone.
pub(super) struct Certificate<'a> {
    pub(super) name: &'a str,
    pub(super) serial: u32,
    pub(super) ended: Ended,
    pub(super) worker: &'a Worker,
    pub(super) age: Duration,
    /// `CPython 3.12.1`, once it is known.
    pub(super) python: &'a str,
    /// Whether the kernel ended it because memory had run out.
    pub(super) by_oom: bool,
}

impl fmt::Display for Certificate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, serial, ended, worker, age, python, by_oom } = self;
        write!(f, "{name}: worker {serial} (pid {}) {}", ended.pid, How(*ended))?;
        if *by_oom {
            f.write_str(" by the kernel's OOM killer: memory had run out")?;
        }
        write!(f, " after {:.1} s", age.as_secs_f32())?;
        if let Some(LastWords { served, .. }) = &worker.last_words {
            write!(f, " and {served} requests")?;
        }
        write!(f, ", with at most {} MiB of memory", ended.peak >> 20)?;
        if !python.is_empty() {
            write!(f, ", under {python}")?;
        }
        let Some(LastWords { serving, .. }) = &worker.last_words else {
            // One that never connected has served nothing.
            return f.write_str(if worker.connected { "; what it was serving the front has not said" } else { "" });
        };
        for (index, (what, seconds)) in serving.iter().enumerate() {
            let separator = if index == 0 { ", serving" } else { "," };
            write!(f, "{separator} {what} for {seconds:.1} s")?;
        }
        Ok(())
    }
}

/// Counts of what the kernel's OOM killer has killed: in our control group, and on the whole machine.
#[derive(Debug)]
pub(super) struct OomKills {
    files: Vec<PathBuf>,
    seen: u64,
}

impl OomKills {
    /// As they stand now.
    pub(super) fn now() -> Self {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut files = vec![PathBuf::from("/proc/vmstat")];
        files.extend(group_files(&groups, Path::new("/sys/fs/cgroup")));
        Self::of(files)
    }

    fn of(files: Vec<PathBuf>) -> Self {
        let mut kills = Self { files, seen: 0 };
        kills.seen = kills.count();
        kills
    }

    /// Whether it has killed since the last look.
    pub(super) fn more(&mut self) -> bool {
        let before = std::mem::replace(&mut self.seen, 0);
        self.seen = self.count();
        self.seen > before
    }

    fn count(&self) -> u64 {
        self.files.iter().filter_map(|path| oom_kills(&std::fs::read_to_string(path).ok()?)).sum()
    }
}

/// Where the control groups of `/proc/self/cgroup` tell of it, below `root`: version 2, then version 1.
fn group_files(groups: &str, root: &Path) -> Vec<PathBuf> {
    let file = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let path = path.trim_start_matches('/');
        match controllers {
            "" => Some(root.join(path).join("memory.events")),
            "memory" => Some(root.join("memory").join(path).join("memory.oom_control")),
            _ => None,
        }
    };
    groups.lines().filter_map(file).collect()
}

/// The number behind `oom_kill` in any of these files.
fn oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Ended = Ended { pid: 12, code: None, signal: Some(9), peak: 300 << 20 };

    #[test]
    fn a_signal_is_told_by_number_and_name() {
        let killed = |number| How(Ended { signal: Some(number), ..KILLED }).to_string();
        assert_eq!(killed(9), "was killed by signal 9 (SIGKILL)");
        assert_eq!(killed(11), "was killed by signal 11 (SIGSEGV)");
        assert_eq!(killed(40), "was killed by signal 40");
    }

    #[test]
    fn a_certificate_says_who_how_when_and_over_what() {
        let mut worker = Worker::new(1, 4, None);
        worker.last_words = Some(LastWords { served: 7, serving: vec![("GET /a".to_owned(), 0.25)] });
        let told = |by_oom| {
            let python = "CPython 3.12.1";
            let (age, worker) = (Duration::ZERO, &worker);
            Certificate { name: "shop", serial: 3, ended: KILLED, worker, age, python, by_oom }.to_string()
        };
        assert_eq!(
            told(false),
            "shop: worker 3 (pid 12) was killed by signal 9 (SIGKILL) after 0.0 s and 7 requests, with \
             at most 300 MiB of memory, under CPython 3.12.1, serving GET /a for 0.2 s"
        );
        assert!(told(true).contains("(SIGKILL) by the kernel's OOM killer: memory had run out after"));
    }

    #[test]
    fn kills_are_found_in_either_version_of_control_groups() {
        let files = |groups: &str| group_files(groups, Path::new("/sys/fs/cgroup"));
        assert_eq!(
            files("0::/system.slice/a.service\n"),
            [PathBuf::from("/sys/fs/cgroup/system.slice/a.service/memory.events")]
        );
        assert_eq!(files("0::/\n"), [PathBuf::from("/sys/fs/cgroup/memory.events")], "in a container");
        assert_eq!(
            files("5:cpu,cpuacct:/x\n4:memory:/y\n"),
            [PathBuf::from("/sys/fs/cgroup/memory/y/memory.oom_control")]
        );
        assert_eq!(oom_kills("low 0\noom 2\noom_kill 3\noom_group_kill 0\n"), Some(3));
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"), Some(4));
        assert_eq!(oom_kills("nothing\n"), None);
    }

    #[test]
    fn a_kill_is_seen_once_in_the_events_of_a_group_of_version_2() -> std::io::Result<()> {
        let root = std::env::temp_dir().join(format!("daemun-cgroup-{}", std::process::id()));
        let group = root.join("system.slice/a.service");
        std::fs::create_dir_all(&group)?;
        let events = |kills: u32| {
            let text = format!("low 0\nhigh 0\nmax 51\noom {kills}\noom_kill {kills}\noom_group_kill 0\n");
            std::fs::write(group.join("memory.events"), text)
        };
        events(2)?;
        let mut kills = OomKills::of(group_files("0::/system.slice/a.service\n", &root));
        assert!(!kills.more(), "those were before us");
        events(3)?;
        assert!(kills.more());
        assert!(!kills.more(), "the next death by SIGKILL has another cause");
        // A group that is gone, or of a kernel that tells nothing.
        std::fs::remove_dir_all(&root)?;
        assert!(!kills.more());
        Ok(())
    }
}
