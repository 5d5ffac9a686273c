//! What a person, or a program, is told of a build.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use daemun_static::{Progress, Report};

use super::Options;
use super::order::is_watched;

/// What came of a build.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Where the files went.
    pub destination: Option<PathBuf>,
    /// The project's storage.
    pub storage: Option<String>,
    /// Why Django's own command did it.
    pub django: Option<String>,
    /// What was done.
    pub report: Report,
}

/// How many single files are named before the rest is counted.
const NAMED: usize = 10;

/// Tells what was done: a summary to standard error, or JSON to standard output.
pub fn tell(outcome: &Outcome, options: &Options) {
    let report = &outcome.report;
    let shadowed: Vec<String> = report
        .shadowed
        .iter()
        .map(|(path, first)| format!("{} is not collected: {} comes first", path.display(), first.display()))
        .collect();
    for line in report.warnings.iter().chain(shadowed.iter().take(NAMED)) {
        eprintln!("daemun: warning: {line}");
    }
    if shadowed.len() > NAMED {
        eprintln!("daemun: warning: {} more files are not collected for the same reason", shadowed.len() - NAMED);
    }
    if options.json {
        // A closed pipe: there is nobody left to tell.
        let _ = writeln!(std::io::stdout(), "{}", json(outcome, options));
    } else if outcome.django.is_none() {
        for line in summary(outcome, options) {
            eprintln!("daemun: {line}");
        }
    }
}

fn summary(outcome: &Outcome, options: &Options) -> Vec<String> {
    let report = &outcome.report;
    let place = outcome.destination.as_ref().map_or(String::new(), |place| format!(" in {}", place.display()));
    let would = if options.dry_run { "would be " } else { "" };
    let mut lines = vec![format!(
        "collected {} ({}){place}: {} {would}written, {} unchanged; {:.2} s",
        files(report.files),
        bytes(report.source_bytes),
        files(report.written.len()),
        report.unmodified,
        report.seconds
    )];
    if report.hashed > 0 {
        lines.push(format!("{} with hashed names", files(report.hashed)));
    }
    if report.siblings > 0 {
        lines.push(format!(
            "{} compressed siblings of {} distinct contents, {} of them from the cache; visitors fetch {} less",
            report.siblings,
            report.distinct,
            report.cached,
            bytes(report.saved_bytes)
        ));
    }
    if !report.removed.is_empty() {
        lines.push(format!("{} removed", files(report.removed.len())));
    }
    lines
}

fn files(count: usize) -> String {
    if count == 1 { String::from("1 file") } else { format!("{count} files") }
}

fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        count if count < 1024.0 => format!("{count} B"),
        count if count < 1024.0 * 1024.0 => format!("{:.1} KiB", count / 1024.0),
        count if count < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MiB", count / (1024.0 * 1024.0)),
        count => format!("{:.1} GiB", count / (1024.0 * 1024.0 * 1024.0)),
    }
}

fn json(outcome: &Outcome, options: &Options) -> serde_json::Value {
    let report = &outcome.report;
    serde_json::json!({
        "destination": outcome.destination,
        "storage": outcome.storage,
        "django": outcome.django,
        "dry_run": options.dry_run,
        "files": report.files,
        "source_bytes": report.source_bytes,
        "output_files": report.output_files,
        "written": report.written,
        "unchanged": report.unmodified,
        "hashed": report.hashed,
        "siblings": report.siblings,
        "distinct_contents": report.distinct,
        "from_cache": report.cached,
        "compressed": report.compressed,
        "saved_bytes": report.saved_bytes,
        "shadowed": report.shadowed.iter().map(|(path, first)| serde_json::json!({"path": path, "first": first})).collect::<Vec<_>>(),
        "removed": report.removed,
        "warnings": report.warnings,
        "seconds": report.seconds,
    })
}

/// A bar on a terminal; nothing elsewhere.
pub struct Bar {
    watched: bool,
    steps: AtomicUsize,
    done: AtomicUsize,
    drawn: Mutex<(&'static str, Instant)>,
}

/// The bar's width.
const WIDTH: usize = 30;

/// It is drawn this often.
const PAUSE: Duration = Duration::from_millis(50);

// === impl Bar ===

impl Bar {
    /// A bar that shows nothing yet.
    pub fn new() -> Self {
        let drawn = Mutex::new(("", Instant::now()));
        Self { watched: is_watched(), steps: AtomicUsize::new(0), done: AtomicUsize::new(0), drawn }
    }

    /// Leaves the line as if nothing had been there.
    pub fn clear(&self) {
        if self.watched {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn draw(&self, what: &str) {
        let (steps, done) = (self.steps.load(Ordering::Relaxed).max(1), self.done.load(Ordering::Relaxed));
        let full = (done * WIDTH / steps).min(WIDTH);
        let (full, empty) = ("#".repeat(full), " ".repeat(WIDTH - full));
        let _ = write!(std::io::stderr(), "\r\x1b[K[{full}{empty}] {what} {done}/{steps}");
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Bar {
    fn begin(&self, what: &'static str, steps: usize) {
        self.steps.store(steps, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        if let (true, Ok(mut drawn)) = (self.watched, self.drawn.lock()) {
            *drawn = (what, Instant::now());
            self.draw(what);
        }
    }

    fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        // Whoever holds the lock draws.
        if let (true, Ok(mut drawn)) = (self.watched, self.drawn.try_lock())
            && drawn.1.elapsed() > PAUSE
        {
            drawn.1 = Instant::now();
            self.draw(drawn.0);
        }
    }
}
