//! How many workers there are and how long they live: on demand, by signal, by age, by memory.

use std::time::{Duration, Instant};

use super::events::Event;
use super::{App, Master, Phase, Worker};
use crate::app::AppSettings;
use crate::server::plan::ToFront;

/// How often workers are looked at: a leak is slower.
const LOOK: Duration = Duration::from_secs(1);

impl Master {
    /// TTIN and TTOU: one process more or fewer of each application.
    pub(super) async fn resize(&mut self, by: i32) {
        if self.phase != Phase::Running || !self.serving {
            return;
        }
        let names: Vec<String> = self.apps.keys().cloned().collect();
        for name in names {
            let Some(app) = self.apps.get_mut(&name).filter(|app| app.generation != u64::MAX) else { continue };
            let processes = app.wanted.saturating_add_signed(by).max(app.settings.min_processes.min(1));
            if processes == app.wanted {
                continue;
            }
            app.wanted = processes;
            let generation = app.generation;
            let youngest = app.workers.iter().filter(|(_, worker)| !worker.leaving).map(|(&serial, _)| serial).max();
            self.errors.info(format_args!("{name}: {processes} processes from now on"));
            match youngest {
                Some(serial) if by < 0 => self.retire(&name, serial).await,
                _ => self.fork_worker(&name, generation, None).await,
            }
        }
    }

    /// Requests wait: one worker more of an application that starts them on demand. One at a time, since the next one
    /// changes what waits.
    pub(super) async fn grow(&mut self, name: &str, waiting: usize, seconds: f32) {
        let Some(app) = self.apps.get_mut(name).filter(|app| app.generation != u64::MAX) else { return };
        let current = |worker: &&Worker| worker.generation == app.generation && !worker.leaving;
        let starting = app.workers.values().filter(current).any(|worker| !worker.connected);
        if starting || app.wanted >= app.settings.processes || self.phase != Phase::Running {
            return;
        }
        app.wanted += 1;
        let (wanted, generation) = (app.wanted, app.generation);
        self.errors.info(format_args!(
            "{name}: {waiting} requests wait, the first for {seconds:.2} s: {wanted} processes from now on"
        ));
        self.fork_worker(name, generation, None).await;
    }

    /// These workers have had nothing to do for `idle`: those above the fewest end, the youngest first.
    pub(super) async fn shrink(&mut self, name: &str, idle: &[u32]) {
        let Some(app) = self.apps.get_mut(name).filter(|app| app.generation != u64::MAX) else { return };
        let generation = app.generation;
        let mut leaving: Vec<u32> = idle
            .iter()
            .copied()
            .filter(|serial| {
                let worker = app.workers.get(serial);
                worker.is_some_and(|worker| worker.generation == generation && !worker.leaving && worker.connected)
            })
            .collect();
        leaving.sort_unstable_by(|a, b| b.cmp(a));
        leaving.truncate(app.wanted.saturating_sub(app.settings.min_processes) as usize);
        app.wanted -= leaving.len() as u32;
        let wanted = app.wanted;
        for serial in leaving {
            self.errors.info(format_args!("{name}: worker {serial} has nothing to do: {wanted} processes from now on"));
            self.retire(name, serial).await;
        }
    }

    /// Starts the successor of a worker; it ends once that has connected.
    pub(super) async fn replace(&mut self, name: &str, serial: u32, reason: &str) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let generation = app.generation;
        let Some(worker) = app.workers.get_mut(&serial).filter(|worker| worker.generation == generation) else {
            return;
        };
        if worker.leaving || std::mem::replace(&mut worker.is_due, true) {
            return;
        }
        self.errors.info(format_args!("{name}: worker {serial} is replaced: {reason}"));
        self.fork_worker(name, generation, Some(serial)).await;
    }

    /// Looks at the age and the memory of all workers, and asks the front which of them have nothing to do.
    pub(super) async fn look_at_workers(&mut self) {
        self.later(LOOK, Event::LookAtWorkers);
        if self.phase != Phase::Running {
            return;
        }
        let due: Vec<(String, u32, String)> = self
            .apps
            .iter()
            .flat_map(|(name, app)| app.due().map(|(serial, why)| (name.clone(), serial, why)))
            .collect();
        for (name, serial, why) in due {
            self.replace(&name, serial, &why).await;
        }
        let above = self.apps.iter().filter(|(_, app)| app.wanted > app.settings.min_processes);
        let above: Vec<_> = above.map(|(name, app)| (name.clone(), app.settings.idle)).collect();
        for (name, idle) in above {
            self.tell_front(ToFront::WhoIsIdle(name, idle)).await;
        }
    }
}

impl App {
    /// Workers that are to be replaced, and why.
    fn due(&self) -> impl Iterator<Item = (u32, String)> {
        let settings = &self.settings;
        let there = self.workers.iter().filter(|(_, worker)| worker.connected && !worker.leaving && !worker.is_due);
        there.filter_map(|(&serial, worker)| {
            if let Some(lifetime) = settings.lifetime.map(|lifetime| spread(lifetime, serial))
                && Instant::now().saturating_duration_since(worker.started) >= lifetime
            {
                return Some((serial, format!("it has lived for {} s (`lifetime`)", lifetime.as_secs())));
            }
            let limit = settings.memory_limit?;
            let used = memory(worker.pid, limit).filter(|&used| used > limit)?;
            Some((serial, format!("it uses {} MiB of memory (`memory_limit`)", used >> 20)))
        })
    }
}

/// How many workers an application begins with; `before` is how many it had, where it has been served already.
pub(super) fn wanted(settings: &AppSettings, before: Option<u32>) -> u32 {
    if settings.min_processes == settings.processes {
        return settings.processes.max(1);
    }
    before.unwrap_or(0).clamp(settings.min_processes, settings.processes)
}

/// Up to a tenth more, by the serial, so that workers that were started together are not replaced together.
fn spread(lifetime: Duration, serial: u32) -> Duration {
    lifetime + lifetime / 160 * (serial.wrapping_mul(0x9e37_79b9) >> 28)
}

/// Bytes of memory that a process has for itself: what it shares counts for its part. The kernel adds that up only where the
/// cheap figure, which counts all of it, is above `limit`; where it may not be asked, the cheap figure is what there is.
fn memory(pid: i32, limit: u64) -> Option<u64> {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let resident = pages.split(' ').nth(1)?.parse::<u64>().ok()? * rustix::param::page_size() as u64;
    if resident <= limit {
        return Some(resident);
    }
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let own = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Some(own.map_or(resident, |kilobytes| kilobytes * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_differ_by_at_most_a_tenth() {
        let hour = Duration::from_hours(1);
        let all: Vec<Duration> = (0..1000).map(|serial| spread(hour, serial)).collect();
        assert!(all.iter().all(|&one| one >= hour && one <= hour + hour / 10));
        assert!(all.iter().min() < all.iter().max());
    }

    #[test]
    fn memory_of_our_own_is_found_and_never_more_than_what_is_resident() {
        let pid = std::process::id() as i32;
        let resident = memory(pid, u64::MAX).unwrap();
        assert!(resident > 1 << 20 && memory(pid, 0).unwrap() <= 2 * resident);
        assert_eq!(memory(i32::MAX, 0), None);
    }
}
