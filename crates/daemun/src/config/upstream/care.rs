//! What an upstream does about servers that are not well.

use super::{MOST, field_value};
use crate::config::section::{Entry, Keys, Section};
use crate::upstream::{HealthSettings, SlowSettings, UpstreamSettings};

const HEALTH: Keys =
    Keys { known: &["path", "host", "status", "body", "interval", "timeout", "unhealthy", "healthy"], later: &[] };
const SLOW: Keys = Keys { known: &["times", "over", "answers"], later: &[] };
const RETRIES: Keys = Keys { known: &["max", "budget"], later: &[] };

/// Reads `health`.
pub(super) fn health(entry: &Entry<'_>) -> Option<HealthSettings> {
    let section = entry.section("`health`", "a table such as { path = \"/healthz\", interval = \"5s\" }", HEALTH)?;
    let time = |key: &str| section.entry(key).and_then(|entry| entry.positive_duration());
    let count = |key: &str, default| {
        section.entry(key).and_then(|entry| entry.whole(1, 1000)).map_or(default, |count| count as u32)
    };
    let path = section.entry("path").map_or(Some("/".to_owned()), |entry| {
        entry.parse("a path such as \"/healthz\"", |path| {
            let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
            if is_path { Ok(path.to_owned()) } else { Err(format!("{path:?} is no path")) }
        })
    });
    Some(HealthSettings {
        path: path?,
        host: section.entry("host").and_then(|entry| entry.parse("a host", field_value)),
        status: section.entry("status").and_then(|entry| entry.whole(100, 599)).map(|status| status as u16),
        body: section.entry("body").and_then(|entry| entry.name()),
        interval: time("interval").unwrap_or(std::time::Duration::from_secs(5)),
        timeout: time("timeout").unwrap_or(std::time::Duration::from_secs(2)),
        unhealthy: count("unhealthy", 3),
        healthy: count("healthy", 2),
    })
}

/// Reads `slow`: how many times the median, or a table with more.
fn slow(entry: &Entry<'_>) -> Option<SlowSettings> {
    let mut slow = SlowSettings { times: 0, over: std::time::Duration::from_millis(100), answers: 20 };
    let times = |entry: &Entry<'_>| entry.whole(2, 1000).map(|times| times as u32);
    if entry.is_integer() {
        slow.times = times(entry)?;
        return Some(slow);
    }
    let section = entry.section("`slow`", "a number or a table such as { times = 4, over = \"100ms\" }", SLOW)?;
    let Some(said) = section.entry("times") else {
        entry.fault("`times` is missing: how many times the median of the others is slow");
        return None;
    };
    slow.times = times(&said)?;
    if let Some(over) = section.entry("over").and_then(|entry| entry.positive_duration()) {
        slow.over = over;
    }
    if let Some(answers) = section.entry("answers").and_then(|entry| entry.whole(2, MOST)) {
        slow.answers = answers as u32;
    }
    Some(slow)
}

/// Reads when a server is left alone, and how often another is asked.
pub(super) fn circuit(section: &Section<'_>, settings: &mut UpstreamSettings) {
    if let Some(failures) = section.entry("failures").and_then(|entry| entry.whole(1, 1000)) {
        settings.failures = failures as u32;
    }
    if let Some(eject) = section.entry("eject").and_then(|entry| entry.positive_duration()) {
        settings.eject = eject;
    }
    if let Some(threshold) = section.entry("panic_threshold").and_then(|entry| entry.whole(0, 100)) {
        settings.panic_threshold = threshold as u32;
    }
    if let Some(time) = section.entry("slow_start").and_then(|entry| entry.duration()) {
        settings.slow_start = time;
    }
    settings.slow = section.entry("slow").and_then(|entry| slow(&entry));
    settings.hedge = section.entry("hedge").and_then(|entry| entry.positive_duration());
    let Some(entry) = section.entry("retries") else { return };
    if entry.is_integer() {
        settings.retries = entry.whole(0, 10).map_or(settings.retries, |retries| retries as u32);
    } else if let Some(section) =
        entry.section("`retries`", "a number or a table such as { max = 1, budget = 10 }", RETRIES)
    {
        if let Some(most) = section.entry("max").and_then(|entry| entry.whole(0, 10)) {
            settings.retries = most as u32;
        }
        if let Some(budget) = section.entry("budget").and_then(|entry| entry.whole(0, 100)) {
            settings.retry_budget = budget as u32;
        }
    }
}
