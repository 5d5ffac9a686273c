//! What the health and monitor listeners answer.
//!
//! * `/healthz`: the server is there. `/readyz`: it would answer a request; 503 with the reasons where it would not, and
//!   while it goes down.
//! * `/metrics`: [`exposition`], for Prometheus.
//! * On the monitor listener also `/api/status`, and nothing to whoever does not name us as the host ([`gate`]): a page
//!   that a browser shows could otherwise read it through a name that resolves to this machine.
//!
//! Knows what can be told. Must not know who tells it: [`Sources`] is handed in.

mod exposition;
mod gate;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::control::message::Status;
use crate::handler::{Answering, Handler, Outcome};
use crate::http::{self, Fields, Method, Request, Response, ResponseBody};
use gate::{Gate, Passed};

/// A [`Status`] that may have to be asked for first.
pub type Telling<'a> = Pin<Box<dyn Future<Output = Status> + Send + 'a>>;

/// Who knows how the server is.
pub trait Sources: Send + Sync {
    /// Why a request would not be answered; empty where it would.
    fn obstacles(&self) -> Vec<String>;
    /// How everything is.
    fn status(&self) -> Telling<'_>;
}

/// What answers on a health or monitor listener.
pub struct Monitor {
    sources: Arc<dyn Sources>,
    /// Only on a monitor listener.
    gate: Option<Gate>,
}

impl Monitor {
    /// For a health listener: nothing but health and metrics, for whoever reaches it.
    pub fn health(sources: Arc<dyn Sources>) -> Self {
        Self { sources, gate: None }
    }

    /// For a monitor listener: everything. Whoever has `token` may see URLs and stacks.
    pub fn everything(sources: Arc<dyn Sources>, token: &str) -> Self {
        Self { sources, gate: Some(Gate::new(token)) }
    }

    async fn answer(&self, request: &Request) -> Response {
        if !matches!(request.head.method(), Method::Get | Method::Head) {
            let mut fields = Fields::new();
            fields.push("Allow", "GET, HEAD");
            return text(http::Status::METHOD_NOT_ALLOWED, "GET and HEAD only\n").with_fields(fields);
        }
        let passed = match &self.gate {
            None => Passed::Open,
            Some(gate) => match gate.pass(request) {
                Ok(passed) => passed,
                Err(reason) => return text(http::Status::FORBIDDEN, &format!("{reason}\n")),
            },
        };
        match request.path.as_bytes() {
            b"/healthz" => text(http::Status::OK, "ok\n"),
            b"/readyz" => self.ready(),
            b"/metrics" if passed == Passed::Open => self.metrics(request).await,
            _ if self.gate.is_none() => text(http::Status::NOT_FOUND, "/healthz /readyz /metrics\n"),
            b"/metrics" | b"/api/status" if passed == Passed::Refused => {
                text(http::Status::FORBIDDEN, "ask with the token that `daemun status` prints\n")
            }
            b"/api/status" => self.told().await,
            _ => text(http::Status::NOT_FOUND, "/healthz /readyz /metrics /api/status\n"),
        }
    }

    fn ready(&self) -> Response {
        match &self.sources.obstacles()[..] {
            [] => text(http::Status::OK, "ready\n"),
            obstacles => text(http::Status::SERVICE_UNAVAILABLE, &format!("{}\n", obstacles.join("\n"))),
        }
    }

    async fn metrics(&self, request: &Request) -> Response {
        let accepted = request.head.field("accept").unwrap_or_default();
        let is_open_metrics = memchr::memmem::find(accepted, b"application/openmetrics-text").is_some();
        let status = self.sources.status().await;
        let ready = self.sources.obstacles().is_empty();
        let (body, kind) = exposition::write(&status, ready, is_open_metrics);
        typed(http::Status::OK, kind, body)
    }

    async fn told(&self) -> Response {
        let status = self.sources.status().await;
        match serde_json::to_string(&status) {
            Ok(body) => typed(http::Status::OK, "application/json", body),
            Err(error) => text(http::Status::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }
}

impl Handler for Monitor {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(async move { Ok(Outcome::Response(self.answer(&request).await)) })
    }

    fn may_decline(&self) -> bool {
        false
    }
}

fn text(status: http::Status, body: &str) -> Response {
    typed(status, "text/plain; charset=utf-8", body.to_owned())
}

fn typed(status: http::Status, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(status).with_body(ResponseBody::Full(Bytes::from(body)));
    response.fields.push("Content-Type", kind);
    response.fields.push("Cache-Control", "no-store");
    response.fields.push("X-Content-Type-Options", "nosniff");
    response
}
