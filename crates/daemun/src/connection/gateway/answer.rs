//! One request of a peer and its answer: the same as [`exchange`](crate::connection::exchange), in the words of CGI.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::outbox::Outbox;
use crate::connection::Context;
use crate::connection::current::{self, Current, told};
use crate::connection::error_page::error_response;
use crate::connection::file::FileStream;
use crate::connection::reply::{SMALL_FILE, blamed, length};
use crate::http::h1::{Length, Outgoing, plan};
use crate::http::variables::{ReadVariables, write_response};
use crate::http::{BodyStream, Endpoint, Interim, RequestBody, Response, ResponseBody, Status, Timing, Version};

/// Answers one request. `is_http`: with a status line.
pub(super) async fn answer(
    context: Arc<Context>,
    endpoint: Arc<Endpoint>,
    (read, body): (ReadVariables, RequestBody),
    outbox: Outbox,
    is_http: bool,
) {
    let serving = context.serving.load_full();
    let endpoint = read.endpoint.map_or(endpoint, Arc::new);
    let current = Current::new(read.head, &endpoint, &context, &serving);
    let response = match current.route(body, Interim::none(), None) {
        Err(response) => *response,
        Ok(_) if read.length.is_some_and(|length| length > serving.limits.max_body) => {
            error_response(Status::CONTENT_TOO_LARGE, None, None, None, Some(&current.head))
        }
        Ok(mut request) => {
            request.notes.script_name = read.script_name;
            request.notes.user = read.user;
            let worked = match current::begin(&serving, &current, request) {
                Err(panic) => Err(panic),
                Ok(mut answering) => poll_fn(|task| current::poll(&mut answering, &current, task)).await,
            };
            current.conclude(worked, outbox.failure())
        }
    };
    let mut reply = Reply { current: &current, outbox: &outbox, is_http, sent: 0 };
    let (status, timing) = reply.send(response).await;
    current.log(status, reply.sent, timing);
}

struct Reply<'a> {
    current: &'a Current,
    outbox: &'a Outbox,
    is_http: bool,
    sent: u64,
}

impl Reply<'_> {
    /// Sends an answer; its status and timing.
    async fn send(&mut self, response: Response) -> (Status, Timing) {
        let (mut status, timing) = (response.status, response.timing);
        let file = response.body.as_file().cloned();
        match self.try_send(response).await {
            Ok(()) => {}
            Err((message, false)) => {
                let (blamed, fault) = blamed(file.as_ref());
                let page = self.current.report(blamed, fault, &message, None);
                status = page.status;
                // A page is made in memory and cannot fail.
                let _ = Box::pin(self.try_send(page)).await;
            }
            Err((message, true)) => {
                self.current.report_broken(&format!("{message}; the connection was reset"));
                self.outbox.break_off();
            }
        }
        (status, timing)
    }

    /// The error is what broke, and whether the head was sent by then.
    async fn try_send(&mut self, response: Response) -> Result<(), (String, bool)> {
        let Response { status, reason, fields, body, .. } = response;
        let plan = plan(&Outgoing {
            method: self.current.head.method(),
            version: Version::Http11,
            status,
            length: length(&body),
            keep_alive: true,
        });
        let mut head = Vec::with_capacity(512);
        write_response(&mut head, self.is_http, (status, reason.as_ref()), &fields, plan.length);
        let stream: Pin<Box<dyn BodyStream>> = match body.at_hand() {
            ResponseBody::Tunnel(_) => return Err(("no other protocol can be spoken here".to_owned(), false)),
            _ if !plan.sends_body => {
                self.outbox.put_now(head.into());
                return Ok(());
            }
            ResponseBody::Full(bytes) => {
                self.whole(head, bytes);
                return Ok(());
            }
            ResponseBody::File(file) if file.length <= SMALL_FILE => {
                let bytes = file.read().map_err(|error| (error.to_string(), false))?;
                self.whole(head, bytes.into());
                return Ok(());
            }
            ResponseBody::File(file) => Box::pin(FileStream::new(file)),
            ResponseBody::Stream(stream) => stream,
            _ => {
                self.outbox.put_now(head.into());
                return Ok(());
            }
        };
        self.outbox.put_now(head.into());
        self.stream(stream, plan.length).await.map_err(|message| (message, true))
    }

    fn whole(&mut self, head: Vec<u8>, bytes: Bytes) {
        self.sent += bytes.len() as u64;
        self.outbox.put_now(head.into());
        self.outbox.put_now(bytes);
    }

    async fn stream(&mut self, mut stream: Pin<Box<dyn BodyStream>>, length: Length) -> Result<(), String> {
        let whole = if let Length::Known(length) = length { length } else { u64::MAX };
        loop {
            let next = poll_fn(|task| match catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll_chunk(task))) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(told(&*panic).to_owned())),
            });
            let mut chunk = match next.await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) if whole != u64::MAX && self.sent < whole => {
                    return Err(format!("a response body was {} bytes shorter than it said", whole - self.sent));
                }
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => return Err(format!("a response body failed: {error}")),
                Err(panic) => return Err(format!("a response body panicked: {panic}")),
            };
            let left = whole - self.sent;
            if chunk.len() as u64 > left {
                self.current.report_broken("a response body was longer than it said; the rest was left out");
                chunk.truncate(left as usize);
            }
            self.sent += chunk.len() as u64;
            if !chunk.is_empty() {
                self.outbox.put(chunk).await;
            }
        }
    }
}
