//! OTLP over gRPC: a message behind five bytes in a stream of HTTP/2, and how it went in the trailers.

use std::io;

use ::h2::client::{SendRequest, handshake};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use bytes::{BufMut, Bytes, BytesMut};

use super::settings::ExporterSettings;
use super::{MOST_ANSWER, Refusal, Taken, later};
use crate::upstream::{Dialer, Scheme};

/// What is called.
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A collector and the connection to it.
pub(super) struct Grpc {
    dialer: Dialer,
    uri: Uri,
    headers: HeaderMap,
    connection: Option<SendRequest<Bytes>>,
}

impl Grpc {
    pub(super) fn new(settings: &ExporterSettings) -> Result<Self, String> {
        let server = &settings.endpoint.server;
        let scheme = if server.scheme == Scheme::Https { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(server.authority()).path_and_query(METHOD);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("user-agent", HeaderValue::from_static(concat!("daemun/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &settings.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("{name}: {error}"))?;
            let value = HeaderValue::from_str(value).map_err(|error| format!("{name}: {error}"))?;
            headers.append(name, value);
        }
        let dialer = Dialer::new(server, &settings.tls, b"h2")?;
        Ok(Self { dialer, uri: uri.build().map_err(|error| error.to_string())?, headers, connection: None })
    }

    /// The next message gets a new connection.
    pub(super) fn forget(&mut self) {
        self.connection = None;
    }

    pub(super) async fn send(&mut self, message: Bytes) -> Result<Taken, Refusal> {
        // A collector that was started anew has closed what was kept: that is no failure.
        if let Some(kept) = self.connection.take()
            && let Ok(ready) = kept.ready().await
        {
            self.connection = Some(ready);
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await.map_err(later)?,
        };
        let mut request = Request::builder().method(Method::POST).uri(self.uri.clone()).version(Version::HTTP_2);
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
        }
        let request = request.body(()).map_err(later)?;
        let (answer, mut stream) = connection.send_request(request, false).map_err(later)?;
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(0);
        framed.put_u32(message.len() as u32);
        framed.put_slice(&message);
        stream.send_data(framed.freeze(), true).map_err(later)?;
        let (head, mut body) = answer.await.map_err(later)?.into_parts();
        let mut said = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(later)?;
            // What is not given back is not sent.
            if said.len() + data.len() <= MOST_ANSWER {
                let _ = body.flow_control().release_capacity(data.len());
                said.extend_from_slice(&data);
            } else {
                return Err(Refusal::Never("its answer is too long".to_owned()));
            }
        }
        let trailers = body.trailers().await.map_err(later)?;
        self.connection = Some(connection);
        // Where there is nothing but trailers they stand in the head.
        let trailers = trailers.as_ref().filter(|trailers| trailers.contains_key("grpc-status"));
        judge(head.status.as_u16(), trailers.unwrap_or(&head.headers))?;
        Ok(Taken::read(said.get(5..).unwrap_or_default()))
    }

    async fn connect(&self) -> io::Result<SendRequest<Bytes>> {
        let connection = self.dialer.connect().await?;
        let (send, driver) = handshake(connection.socket).await.map_err(io::Error::other)?;
        // It ends with the connection; what ends it is seen by whoever sends.
        tokio::spawn(driver);
        send.ready().await.map_err(io::Error::other)
    }
}

/// Whether a call came through, and if not, whether it is worth trying again (OTLP, "Failures").
fn judge(status: u16, trailers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let Some(code) = text("grpc-status").and_then(|code| code.parse::<u16>().ok()) else {
        let why = format!("it answered {status} without a grpc-status: does it speak OTLP/gRPC?");
        return Err(if matches!(status, 429 | 502..=504) { Refusal::Later(why) } else { Refusal::Never(why) });
    };
    let message = text("grpc-message").unwrap_or("no reason given");
    match code {
        0 => Ok(()),
        // CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        1 | 4 | 8 | 10 | 11 | 14 | 15 => Err(Refusal::Later(format!("{message} (status {code})"))),
        _ => Err(Refusal::Never(format!("{message} (status {code})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_taken_later_is_told_from_what_never_will() {
        let judged = |status: u16, code: Option<&str>| {
            let mut trailers = HeaderMap::new();
            if let Some(code) = code {
                trailers.insert("grpc-status", HeaderValue::from_str(code).unwrap());
            }
            match judge(status, &trailers) {
                Ok(()) => "taken",
                Err(Refusal::Later(_)) => "later",
                Err(Refusal::Never(_)) => "never",
            }
        };
        for (status, code, want) in [
            (200, Some("0"), "taken"),
            (200, Some("14"), "later"),
            (200, Some("8"), "later"),
            (200, Some("3"), "never"),
            (200, Some("16"), "never"),
            (200, Some("x"), "never"),
            (404, None, "never"),
            (503, None, "later"),
        ] {
            assert_eq!(judged(status, code), want, "{status} {code:?}");
        }
    }
}
