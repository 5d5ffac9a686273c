//! Sends spans to a collector of OpenTelemetry's (OTLP 1), on a thread of its own.
//!
//! 1. [`start`] gives a [`Tracer`] whose queue the thread empties: a batch when it is full, or a second after its first span.
//! 2. A batch goes as one message, over gRPC ([`grpc`]) or HTTP ([`post`]), under a deadline.
//! 3. One that could not be sent is tried again, later each time; meanwhile the queue fills, and what finds no room is
//!    dropped and counted. What a collector refuses is dropped at once. Each is told once, not with every batch.
//! 4. When the tracer is closed, what waits is sent, if that works at once.
//!
//! Knows telemetry and connections to servers. Must not know requests: no request waits for anything here.

mod grpc;
mod post;
mod settings;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::time::{Instant, timeout, timeout_at};

pub use settings::{Endpoint, ExporterSettings, Protocol};

use crate::telemetry::traces::{
    BATCH, SpanQueue, Spans, Tracer, count_dropped, count_sent, counters, request, resource,
};
use crate::telemetry::{ErrorLogger, Seldom};
use grpc::Grpc;
use post::Post;

/// How long a span waits for others: whoever looks at traces does not notice, and a busy server sends few messages.
const GATHERED_FOR: Duration = Duration::from_secs(1);

/// How long sending a batch may take, connecting included: the default of OpenTelemetry's exporters.
const DEADLINE: Duration = Duration::from_secs(10);

/// The pause before a batch is tried again, the first and the longest; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Bytes of an answer that are read: it says at most what was wrong.
const MOST_ANSWER: usize = 64 * 1024;

/// Why a batch was not taken.
#[derive(Debug)]
enum Refusal {
    /// It may be taken later.
    Later(String),
    /// It never will.
    Never(String),
}

/// What a collector said of a batch that it took.
#[derive(Debug, Default, Eq, PartialEq)]
struct Taken {
    /// Spans of it that it did not take all the same.
    rejected: u64,
    /// Why.
    message: String,
}

/// What a batch is sent by.
enum Sender {
    Grpc(Grpc),
    Http(Post),
}

/// The thread's state.
struct Exporter {
    queue: Arc<SpanQueue>,
    sender: Sender,
    errors: ErrorLogger,
    /// For messages.
    url: String,
    resource: Vec<u8>,
    /// The pause before the next try, while the collector takes nothing.
    pause: Option<Duration>,
    /// Spans whose loss was told.
    told: u64,
    refused: Seldom,
    lost: Seldom,
}

/// Starts the thread. Spans of the tracer that comes back go where `settings` say.
pub fn start(settings: &ExporterSettings, errors: ErrorLogger) -> io::Result<Arc<Tracer>> {
    let queue = Arc::new(SpanQueue::default());
    let mut exporter = Exporter {
        queue: Arc::clone(&queue),
        sender: Sender::new(settings).map_err(io::Error::other)?,
        errors,
        url: settings.endpoint.server.url.clone(),
        resource: resource(&settings.traces),
        pause: None,
        told: counters().1,
        refused: Seldom::default(),
        lost: Seldom::default(),
    };
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
    std::thread::Builder::new().name("traces".to_owned()).spawn(move || {
        runtime.block_on(exporter.run());
        exporter.queue.end();
        // A name that is being looked up is not waited for.
        runtime.shutdown_background();
    })?;
    Ok(Arc::new(Tracer::new(settings.traces.clone(), queue)))
}

impl Exporter {
    /// The thread's life.
    async fn run(&mut self) {
        loop {
            if self.queue.is_empty() {
                if self.queue.is_closing() {
                    return;
                }
                self.queue.woken().await;
                continue;
            }
            let until = Instant::now() + GATHERED_FOR;
            while self.queue.len() < BATCH && !self.queue.is_closing() {
                if timeout_at(until, self.queue.woken()).await.is_err() {
                    break;
                }
            }
            let batch = self.queue.take();
            self.deliver(&batch).await;
            self.tell_losses();
        }
    }

    /// Sends a batch, however often that takes.
    async fn deliver(&mut self, batch: &[Spans]) {
        let spans: u64 = batch.iter().map(|spans| u64::from(spans.count)).sum();
        let message = Bytes::from(request(&self.resource, batch));
        loop {
            let sent = timeout(DEADLINE, self.sender.send(message.clone())).await;
            let late = || Refusal::Later(format!("it took nothing within {} s", DEADLINE.as_secs()));
            match sent.unwrap_or_else(|_| Err(late())) {
                Ok(taken) => return self.was_taken(spans, &taken),
                Err(Refusal::Never(why)) => {
                    self.pause = None;
                    self.was_refused(spans, &why);
                    return;
                }
                Err(Refusal::Later(why)) => {
                    self.sender.forget();
                    if self.queue.is_closing() {
                        return self.give_up(spans, &why);
                    }
                    if self.pause.is_none() {
                        let url = &self.url;
                        self.errors.warning(format_args!("traces: {url}: {why}; spans wait, and are sent again later"));
                    }
                    let pause = self.pause.map_or(FIRST_PAUSE, |last| (2 * last).min(LONGEST_PAUSE));
                    self.pause = Some(pause);
                    let until = Instant::now() + pause;
                    while !self.queue.is_closing() && timeout_at(until, self.queue.woken()).await.is_ok() {}
                    self.tell_losses();
                }
            }
        }
    }

    fn was_taken(&mut self, spans: u64, taken: &Taken) {
        if self.pause.take().is_some() {
            self.errors.info(format_args!("traces: {} takes spans again", self.url));
        }
        count_sent(spans.saturating_sub(taken.rejected));
        if taken.rejected > 0 {
            self.was_refused(taken.rejected.min(spans), &taken.message);
        } else if !taken.message.is_empty() && self.refused.happened().is_some() {
            self.errors.warning(format_args!("traces: {} says: {}", self.url, taken.message));
        }
    }

    fn was_refused(&mut self, spans: u64, why: &str) {
        count_dropped(spans);
        self.told += spans;
        if let Some(times) = self.refused.happened() {
            let others = if times > 1 { format!(", as {} times before", times - 1) } else { String::new() };
            let url = &self.url;
            self.errors.error(format_args!("traces: {url} refuses spans: {why}; {spans} were dropped{others}"));
        }
    }

    /// At the end nothing is tried again.
    fn give_up(&mut self, spans: u64, why: &str) {
        let left = self.queue.len() as u64;
        while !self.queue.is_empty() {
            self.queue.take();
        }
        count_dropped(spans + left);
        self.told = counters().1;
        self.errors.warning(format_args!(
            "traces: {} spans were dropped at the end: {}: {why}",
            spans + left,
            self.url
        ));
    }

    /// Tells what found no room in the queue.
    fn tell_losses(&mut self) {
        let dropped = counters().1;
        if dropped > self.told && self.lost.happened().is_some() {
            let (lost, url) = (dropped - self.told, &self.url);
            self.told = dropped;
            self.errors.warning(format_args!("traces: {lost} spans were dropped: {url} did not take them in time"));
        }
    }
}

impl Sender {
    fn new(settings: &ExporterSettings) -> Result<Self, String> {
        Ok(match &settings.endpoint.protocol {
            Protocol::Grpc => Self::Grpc(Grpc::new(settings)?),
            Protocol::Http { path } => Self::Http(Post::new(settings, path)?),
        })
    }

    async fn send(&mut self, message: Bytes) -> Result<Taken, Refusal> {
        match self {
            Self::Grpc(grpc) => grpc.send(message).await,
            Self::Http(post) => post.send(&message).await,
        }
    }

    /// Drops the connection.
    fn forget(&mut self) {
        if let Self::Grpc(grpc) = self {
            grpc.forget();
        }
    }
}

impl Taken {
    /// Reads an `ExportTraceServiceResponse`.
    fn read(message: &[u8]) -> Self {
        use crate::telemetry::traces::protobuf::{Field, fields};
        let mut taken = Self::default();
        for (_, partial) in fields(message).filter(|(field, _)| *field == 1) {
            let Field::Bytes(partial) = partial else { continue };
            for (field, value) in fields(partial) {
                match (field, value) {
                    (1, Field::Number(rejected)) => taken.rejected = rejected,
                    (2, Field::Bytes(message)) => taken.message = String::from_utf8_lossy(message).into_owned(),
                    _ => {}
                }
            }
        }
        taken
    }
}

fn later(error: impl std::fmt::Display) -> Refusal {
    Refusal::Later(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_collector_says_is_read() {
        assert_eq!(Taken::read(b""), Taken::default());
        let said = Taken::read(b"\x0a\x07\x08\x03\x12\x03why");
        assert_eq!(said, Taken { rejected: 3, message: "why".to_owned() });
    }
}
