//! Traces: which requests are kept, and what is told of them.
//!
//! 1. [`Tracer::begin`] gives a request its part of a trace: the one that its `traceparent` names, or a new one.
//! 2. Whoever works on it notes when he begins ([`Trace::note`]); what answers is told of it by the head that it gets.
//! 3. [`Tracer::end`] makes spans of what was noted and appends them to a bounded queue ([`SpanQueue`]).
//!
//! Sending them is for somebody else, on a thread of his own.

pub mod protobuf;
mod queue;
mod settings;
mod span;

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

pub use queue::{BATCH, SpanQueue, Spans, count_dropped, count_sent, counters};
pub use settings::{Parents, TraceSettings};
pub use span::{Told, request, resource};

use crate::http::trace::{Parent, SpanId, Trace, TraceId, is_valid_state};
use crate::http::{HeadEdit, RequestHead};

/// Decides which requests are kept, and queues what is told of them.
#[derive(Debug)]
pub struct Tracer {
    settings: TraceSettings,
    queue: Arc<SpanQueue>,
}

thread_local! {
    /// Each event loop draws names from a place of its own that nobody can guess.
    static DRAWN: Cell<[u64; 4]> = Cell::new(std::array::from_fn(|_| RandomState::new().hash_one(0)));
}

impl Tracer {
    /// One that fills `queue`.
    pub fn new(settings: TraceSettings, queue: Arc<SpanQueue>) -> Self {
        Self { settings, queue }
    }

    /// The part of a trace that a request is, and the head that whoever answers gets: with us as its parent, and without a
    /// `tracestate` that belongs to no trace or is none.
    pub fn begin(&self, head: &RequestHead, is_trusted: bool) -> (Arc<Trace>, RequestHead) {
        let counts = self.settings.parents == Parents::All || is_trusted;
        let parent = if counts { Parent::of(head) } else { None };
        let names = (span_id(), span_id());
        let trace = if let Some(Parent { trace, span, is_sampled }) = parent {
            Trace::new(trace, names, Some(span), is_sampled)
        } else {
            let id = trace_id();
            let is_kept = self.keeps(&id);
            Trace::new(id, names, None, is_kept)
        };
        let told = trace.parent_of_work();
        let keeps_state = trace.parent.is_some() && is_valid_state(head);
        let remove: &[&str] = if keeps_state { &[] } else { &["tracestate"] };
        let head = head.edited(&HeadEdit { remove, set: &[(b"traceparent", &told)], ..HeadEdit::default() });
        (Arc::new(trace), head)
    }

    /// As OpenTelemetry's `TraceIdRatioBased`: every service that has the same ratio keeps the same traces.
    fn keeps(&self, id: &TraceId) -> bool {
        let mut low = [0; 8];
        low.copy_from_slice(&id[8..]);
        let draw = u64::from_be_bytes(low) >> 1;
        // At 1 the bound is 2^63, which no draw reaches.
        draw < (self.settings.ratio * (1_u64 << 63) as f64) as u64
    }

    /// The request is over: queues what is told of it, if it is kept.
    pub fn end(&self, told: &Told<'_>) {
        if told.trace.is_sampled {
            self.queue.push(span::of_request(told));
        }
    }

    /// Takes no more, and waits until what there is was sent, at most this long.
    pub fn close(&self, within: Duration) -> bool {
        self.queue.close();
        self.queue.wait_for_end(within)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Blackman's and Vigna's xoshiro256++.
fn draw() -> u64 {
    let [mut a, mut b, mut c, mut d] = DRAWN.get();
    let drawn = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
    let shifted = b << 17;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    DRAWN.set([a, b, c, d.rotate_left(45)]);
    drawn
}

fn trace_id() -> TraceId {
    let mut id = TraceId::default();
    id[..8].copy_from_slice(&draw().to_be_bytes());
    id[8..].copy_from_slice(&span_id());
    id
}

/// Never zeros, which would be no name.
fn span_id() -> SpanId {
    loop {
        let drawn = draw();
        if drawn != 0 {
            return drawn.to_be_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http::h1::{HeadLimits, parse_head};

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";

    fn head(fields: &str) -> RequestHead {
        let limits = HeadLimits { max_head: 65_536, max_request_line: 16_384, max_fields: 100 };
        parse_head(&Bytes::from(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")), &limits).unwrap().head
    }

    fn tracer(ratio: f64, parents: Parents) -> Tracer {
        Tracer::new(TraceSettings { ratio, parents, ..TraceSettings::default() }, Arc::default())
    }

    #[test]
    fn a_parent_decides_and_the_ratio_where_there_is_none() {
        for ratio in [0.0, 1.0] {
            let tracer = tracer(ratio, Parents::All);
            for sampled in [false, true] {
                let given = format!("traceparent: {GIVEN}{}\r\ntracestate: a=1\r\n", u8::from(sampled));
                let (trace, told) = tracer.begin(&head(&given), false);
                assert_eq!((trace.id[0], trace.is_sampled), (0x0a, sampled));
                assert_eq!(trace.parent, Some([0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]));
                assert_eq!(told.field("tracestate"), Some(&b"a=1"[..]));
                assert_eq!(Parent::of(&told).unwrap().span, trace.work);
            }
            let (trace, told) = tracer.begin(&head("tracestate: a=1\r\n"), false);
            assert_eq!((trace.parent, trace.is_sampled), (None, ratio > 0.5));
            assert_eq!(Parent::of(&told).unwrap().trace, trace.id);
            assert_eq!(told.field("tracestate"), None, "it belongs to no trace");
        }
        let tracer = tracer(0.25, Parents::All);
        let kept = (0..4000).filter(|_| tracer.begin(&head(""), false).0.is_sampled).count();
        assert!((800..1200).contains(&kept), "{kept}");
    }

    #[test]
    fn what_is_not_valid_or_from_a_stranger_is_replaced() {
        let given = format!("traceparent: {GIVEN}1\r\ntracestate: a=1\r\n");
        for (given, parents, is_trusted, counts) in [
            (&given, Parents::Trusted, false, false),
            (&given, Parents::Trusted, true, true),
            (&given.replace("00-", "00_"), Parents::All, true, false),
            (&given.replace("a=1", "a"), Parents::All, true, true),
        ] {
            let (trace, told) = tracer(1.0, parents).begin(&head(given), is_trusted);
            assert_eq!(trace.parent.is_some(), counts, "{given}");
            assert_eq!(told.field_values("traceparent").count(), 1);
            assert_eq!(told.field("tracestate").is_some(), counts && given.contains("a=1"), "{given}");
        }
    }

    #[test]
    fn names_differ() {
        let names: std::collections::HashSet<_> = (0..1000).map(|_| trace_id()).collect();
        assert_eq!(names.len(), 1000);
    }
}
