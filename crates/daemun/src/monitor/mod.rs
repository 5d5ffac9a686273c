//! What the health and monitor listeners answer.
//!
//! * `/healthz`: the server is there. `/readyz`: it would answer a request; 503 with the reasons where it would not, and
//!   while it goes down.
//! * `/metrics`: [`exposition`], for Prometheus.
//! * On the monitor listener also the live page ([`page`]), what it shows as `/api/live` ([`live`]), the Python stack of
//!   a request as `/api/stack`, and `/api/status`; URLs and stacks for the token alone, and nothing to whoever does not name us as the host ([`gate`]): a page
//!   that a browser shows could otherwise read it through a name that resolves to this machine.
//!
//! Knows what can be told. Must not know who tells it: [`Sources`] is handed in.

mod exposition;
mod gate;
pub mod live;
mod page;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::control::message::Status;
use crate::handler::{Answering, Handler, Outcome};
use crate::http::{self, Fields, Method, Request, Response, ResponseBody};
use gate::{Gate, Passed};
use live::Live;

/// What may have to be asked for first.
pub type Telling<'a, T = Status> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who knows how the server is.
pub trait Sources: Send + Sync {
    /// Why a request would not be answered; empty where it would.
    fn obstacles(&self) -> Vec<String>;
    /// How everything is.
    fn status(&self) -> Telling<'_>;
    /// What the live page shows.
    fn live(&self) -> Telling<'_, Live>;
    /// The Python stack of the thread that is at the request of this name.
    fn stack<'a>(&'a self, id: &'a str) -> Telling<'a, Option<String>>;
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
            path => self.tell(request, path, passed).await,
        }
    }

    /// What only the monitor listener tells. `passed`: whether this client needs no token for figures.
    async fn tell(&self, request: &Request, path: &[u8], passed: Passed) -> Response {
        if let Some((kind, bytes)) = page::part(path) {
            // The same for everybody: it shows nothing by itself.
            return page::response(kind, bytes);
        }
        if passed == Passed::Refused {
            return text(http::Status::FORBIDDEN, "ask with the token that `daemun status` prints\n");
        }
        let open = self.gate.as_ref().is_some_and(|gate| gate.has_token(request));
        match path {
            b"/" => page::response("text/html; charset=utf-8", page::PAGE),
            b"/api/status" => {
                let status = self.sources.status().await;
                json(&if open { status } else { live::closed(status) })
            }
            b"/api/live" => {
                let live = self.sources.live().await;
                json(&if open { live } else { live.closed() })
            }
            b"/api/stack" if open => self.stack(request).await,
            b"/api/stack" => text(http::Status::FORBIDDEN, "ask with the token that `daemun status` prints\n"),
            _ => text(http::Status::NOT_FOUND, "/ /healthz /readyz /metrics /api/status /api/live /api/stack?id=ID\n"),
        }
    }

    /// The stack of the request that `id=` in the query names.
    async fn stack(&self, request: &Request) -> Response {
        let mut query = request.head.query().unwrap_or_default().split(|&byte| byte == b'&');
        let id = query.find_map(|pair| pair.strip_prefix(b"id=")).unwrap_or_default();
        let stack = self.sources.stack(&String::from_utf8_lossy(id)).await;
        match stack {
            Some(stack) if !stack.is_empty() => text(http::Status::OK, &stack),
            Some(_) => text(http::Status::OK, "  it is in no function of the application\n"),
            None => text(http::Status::NOT_FOUND, "no worker is at this request any more\n"),
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
}

impl Handler for Monitor {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(async move { Ok(Outcome::Response(self.answer(&request).await)) })
    }

    fn may_decline(&self) -> bool {
        false
    }
}

fn json(told: &impl serde::Serialize) -> Response {
    match serde_json::to_string(told) {
        Ok(body) => typed(http::Status::OK, "application/json", body),
        Err(error) => text(http::Status::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
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
