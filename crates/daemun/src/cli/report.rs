//! How `daemun status` looks.

use std::fmt::Write;

use crate::control::message::{AppStatus, CertificateStatus, ServerStatus, Status};

/// The last second that an HTTP date can tell, that of the year 9999.
const LAST_DATE: u64 = 253_402_300_799;

/// A status as text; each line can be found by its first word.
pub(super) fn text(status: &Status) -> String {
    let mut out = String::new();
    // Writing into memory cannot fail.
    let _ = describe(&mut out, status);
    out
}

fn describe(out: &mut String, status: &Status) -> std::fmt::Result {
    let age = age(status.uptime);
    writeln!(out, "daemun {} pid {} {} for {age}: {}", status.version, status.pid, status.phase, status.target)?;
    for file in &status.files {
        writeln!(out, "file      {file}")?;
    }
    let urls = [("listening", &status.listeners), ("health", &status.health), ("monitor", &status.monitor)];
    for (what, urls) in urls {
        for url in urls {
            writeln!(out, "{what:<9} {url}")?;
        }
    }
    if let Some(traffic) = &status.traffic {
        let classes: Vec<String> = traffic.statuses.iter().map(|(class, count)| format!("{class} {count}")).collect();
        let requests = traffic.requests;
        writeln!(out, "requests  {requests} ({})", classes.join(", "))?;
        let (open, accepted) = (traffic.connections, traffic.accepted);
        writeln!(out, "clients   {open} connections open, {accepted} accepted")?;
        if traffic.lost_lines > 0 {
            writeln!(out, "log       {} lines of the access log were lost", traffic.lost_lines)?;
        }
    }
    for certificate in &status.certificates {
        let CertificateStatus { hosts, state, issuer, until, reason, .. } = certificate;
        let hosts = if hosts.is_empty() { "all other names".to_owned() } else { hosts.join(", ") };
        write!(out, "tls       {hosts}: {state}")?;
        if let Some(until) = until.and_then(|until| u64::try_from(until).ok()) {
            let until = std::time::UNIX_EPOCH + std::time::Duration::from_secs(until.min(LAST_DATE));
            write!(out, ", by {issuer}, until {}", httpdate::fmt_http_date(until))?;
        }
        if let Some(reason) = reason {
            write!(out, "; {reason}")?;
        }
        writeln!(out)?;
    }
    let front = &status.front;
    writeln!(out, "front     pid {} for {}, started again {} times", front.pid, self::age(front.age), front.restarts)?;
    for (name, app) in &status.apps {
        application(out, name, app)?;
    }
    for (name, servers) in &status.upstreams {
        for ServerStatus { url, state, age, active, kept, requests, failures } in servers {
            let heard = age.map_or("not heard of yet".to_owned(), |age| format!("heard of {} ago", self::age(age)));
            write!(out, "upstream  {name}: {url} {state}, {heard}, {active} active, {kept} kept connections, ")?;
            writeln!(out, "{requests} requests, {failures} failed")?;
        }
    }
    if let Some(reload) = &status.last_reload {
        for line in reload.text.lines() {
            writeln!(out, "reload    {line}")?;
        }
    }
    for sentence in &status.degraded {
        writeln!(out, "degraded  {sentence}")?;
    }
    Ok(())
}

fn application(out: &mut String, name: &str, app: &AppStatus) -> std::fmt::Result {
    let (state, workers, processes) = (&app.state, app.workers.len(), app.processes);
    write!(out, "app       {name}: {state}, {workers} of {processes} workers, ")?;
    write!(out, "{} busy and {} idle threads, {} queued", app.busy, app.idle, app.queued)?;
    if app.replays > 0 {
        write!(out, ", {} replayed", app.replays)?;
    }
    for (cause, count) in &app.restarts {
        write!(out, ", {count} {cause}")?;
    }
    writeln!(out)?;
    for worker in &app.workers {
        let memory = worker.memory.map_or_else(|| "?".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        let state = match (worker.leaving, worker.connected) {
            (true, _) => "leaving",
            (_, true) => "serving",
            _ => "starting",
        };
        let (serial, pid, age) = (worker.serial, worker.pid, age(worker.age));
        writeln!(out, "worker    {name} {serial}: pid {pid}, {state}, {memory}, for {age}")?;
    }
    Ok(())
}

/// What went through between two looks.
pub(super) fn rates(before: &Status, now: &Status) -> String {
    let (Some(old), Some(new)) = (&before.traffic, &now.traffic) else { return String::new() };
    let seconds = (now.uptime - before.uptime).max(0.001);
    let requests = new.requests.saturating_sub(old.requests);
    let mean = if requests == 0 { 0.0 } else { (new.seconds - old.seconds).max(0.0) / requests as f64 * 1000.0 };
    let bytes = new.sent_bytes.saturating_sub(old.sent_bytes) as f64 / seconds / 1024.0;
    format!("now       {:.0} requests/s, {mean:.1} ms each, {bytes:.0} KiB/s out\n", requests as f64 / seconds)
}

fn age(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min", whole / 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::Traffic;

    #[test]
    fn ages_and_rates_are_told_in_units_of_their_size() {
        let told = [4.25, 61.0, 3700.0, 200_000.0].map(age);
        assert_eq!(told, ["4.2 s", "1 min", "1 h 1 min", "2 d 7 h"]);
        let at = |uptime, requests, seconds| Status {
            uptime,
            traffic: Some(Traffic { requests, seconds, sent_bytes: requests * 1024, ..Traffic::default() }),
            ..Status::default()
        };
        let told = rates(&at(10.0, 100, 1.0), &at(12.0, 300, 2.0));
        assert_eq!(told, "now       100 requests/s, 5.0 ms each, 100 KiB/s out\n");
    }
}
