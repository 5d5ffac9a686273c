//! What browsers of a developer get besides: word of a change, and where the time of an answer went.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch::Receiver;

use crate::handler::{Answering, Handler, Outcome};
use crate::http::{BodyError, BodyStream, Fields, Request, Response, ResponseBody, Status};

/// Where a page waits for the next change (server-sent events).
const CHANGES: &[u8] = b"/.daemun/changes";

/// The script of `--refresh`.
const SCRIPT_PATH: &[u8] = b"/.daemun/refresh.js";

/// The first word says which change the page is of; another one makes it load itself anew. A server that was started anew
/// counts from 0, and that is another one too.
const SCRIPT: &str = "\
(function(){var seen=null;new EventSource('/.daemun/changes').onmessage=function(e){\
if(seen!==null&&seen!==e.data)location.reload();seen=e.data}})();\n";

/// `next` with this around it.
pub(super) fn around(next: Arc<dyn Handler>, changes: Receiver<u64>) -> Arc<dyn Handler> {
    Arc::new(Around { next, changes })
}

struct Around {
    next: Arc<dyn Handler>,
    changes: Receiver<u64>,
}

impl Handler for Around {
    fn handle(&self, request: Request) -> Answering<'_> {
        let path = request.path.as_bytes();
        if path == CHANGES || path == SCRIPT_PATH {
            let response = if path == CHANGES { stream(self.changes.clone()) } else { script() };
            return Box::pin(async { Ok(Outcome::Response(response)) });
        }
        let begun = Instant::now();
        let answering = self.next.handle(request);
        Box::pin(async move {
            let mut outcome = answering.await?;
            if let Outcome::Response(response) = &mut outcome {
                let timing = server_timing(response, begun);
                response.fields.push("Server-Timing", timing);
            }
            Ok(outcome)
        })
    }

    fn may_decline(&self) -> bool {
        self.next.may_decline()
    }
}

/// Milliseconds by name, as the tools of browsers show them.
fn server_timing(response: &Response, begun: Instant) -> String {
    let times =
        [("queue", response.timing.queue), ("app", response.timing.application), ("total", Some(begun.elapsed()))];
    let times = times.iter().filter_map(|(name, time)| time.map(|time| (name, time)));
    let told: Vec<String> =
        times.map(|(name, time)| format!("{name};dur={:.1}", time.as_secs_f64() * 1000.0)).collect();
    told.join(", ")
}

fn script() -> Response {
    let fields = Fields::new().with("Content-Type", "text/javascript; charset=utf-8").with("Cache-Control", "no-store");
    Response::new(Status::OK).with_fields(fields).with_body(ResponseBody::Full(Bytes::from_static(SCRIPT.as_bytes())))
}

fn stream(mut changes: Receiver<u64>) -> Response {
    changes.mark_changed();
    let fields = Fields::new().with("Content-Type", "text/event-stream").with("Cache-Control", "no-store");
    let stream = Stream { next: Box::pin(next(changes)) };
    Response::new(Status::OK).with_fields(fields).with_body(ResponseBody::Stream(Box::pin(stream)))
}

type Next = Pin<Box<dyn Future<Output = Option<(u64, Receiver<u64>)>> + Send>>;

/// One event for each change, the first at once.
struct Stream {
    next: Next,
}

async fn next(mut changes: Receiver<u64>) -> Option<(u64, Receiver<u64>)> {
    changes.changed().await.ok()?;
    let number = *changes.borrow_and_update();
    Some((number, changes))
}

impl BodyStream for Stream {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some((number, changes)) = ready!(self.next.as_mut().poll(context)) else { return Poll::Ready(None) };
        self.next = Box::pin(next(changes));
        Poll::Ready(Some(Ok(Bytes::from(format!("data: {number}\n\n")))))
    }
}
