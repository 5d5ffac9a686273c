//! Where spans are sent to.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::telemetry::traces::TraceSettings;
use crate::upstream::{ClientTls, ServerSettings};

/// `[server] traces`.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub struct ExporterSettings {
    /// Which requests, and under which name.
    pub traces: TraceSettings,
    /// Where.
    pub endpoint: Endpoint,
    /// Fields of each request, such as a key. Default none.
    pub headers: Vec<(String, String)>,
    /// Who is trusted over https. Default those that browsers trust.
    pub tls: ClientTls,
}

/// A collector of OpenTelemetry's.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Endpoint {
    /// Host and port, and whether over TLS.
    pub server: ServerSettings,
    /// What is spoken.
    pub protocol: Protocol,
}

/// What a collector speaks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with protocol buffers.
    Http {
        /// What is asked for.
        path: String,
    },
}

/// The port that is usual for OTLP/HTTP; that for gRPC is 4317.
const HTTP_PORT: u16 = 4318;

/// What OTLP/HTTP asks for where no path is said.
const HTTP_PATH: &str = "/v1/traces";

impl fmt::Debug for ExporterSettings {
    /// Without the values of fields, which may be keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&String> = self.headers.iter().map(|(name, _)| name).collect();
        let mut out = f.debug_struct("ExporterSettings");
        out.field("traces", &self.traces).field("endpoint", &self.endpoint);
        out.field("headers", &headers).field("tls", &self.tls).finish()
    }
}

impl Endpoint {
    /// Reads a URL such as `http://127.0.0.1:4317`. Where `protocol` says nothing, a path and port 4318 speak for HTTP.
    pub fn parse(url: &str, protocol: Option<&str>) -> Result<Self, String> {
        let wish = "a collector such as \"http://127.0.0.1:4317\" or \"https://otlp.example.com/v1/traces\"";
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("expected {wish}, found {url:?}"))?;
        if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
            return Err(format!("expected {wish}, found {url:?}"));
        }
        let split = if rest.starts_with("unix:") { None } else { rest.find('/') };
        let (authority, path) = split.map_or((rest, ""), |at| rest.split_at(at));
        let is_sendable = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let server = ServerSettings::parse(&format!("{scheme}://{authority}"));
        let mut server = server.map_err(|_| format!("expected {wish}, found {url:?}"))?;
        url.clone_into(&mut server.url);
        let path = path.trim_end_matches('/');
        let speaks_http = match protocol {
            Some("grpc") if !path.is_empty() => return Err(format!("gRPC knows no path, found {url:?}")),
            Some("grpc") => false,
            Some("http" | "http/protobuf") => true,
            Some(other) => return Err(format!("expected `grpc` or `http/protobuf`, found {other:?}")),
            None => !path.is_empty() || authority.ends_with(&format!(":{HTTP_PORT}")),
        };
        let path = if path.is_empty() { HTTP_PATH } else { path };
        let protocol = if speaks_http { Protocol::Http { path: path.to_owned() } } else { Protocol::Grpc };
        if is_sendable { Ok(Self { server, protocol }) } else { Err(format!("expected {wish}, found {url:?}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Address;

    #[test]
    fn a_collector_is_a_url_and_says_what_it_speaks() {
        let http = |path: &str| Some(Protocol::Http { path: path.to_owned() });
        for (url, protocol, port, want) in [
            ("http://127.0.0.1:4317", None, 4317, Some(Protocol::Grpc)),
            ("http://127.0.0.1:4317/", None, 4317, Some(Protocol::Grpc)),
            ("http://127.0.0.1:4318", None, 4318, http("/v1/traces")),
            ("http://127.0.0.1:4318", Some("grpc"), 4318, Some(Protocol::Grpc)),
            ("https://otlp.example.com/api/v1/traces", None, 443, http("/api/v1/traces")),
            ("https://otlp.example.com", Some("http/protobuf"), 443, http("/v1/traces")),
            ("https://otlp.example.com/x", Some("grpc"), 0, None),
            ("http://a:4317", Some("json"), 0, None),
            ("a:4317", None, 0, None),
            ("grpc://a:4317", None, 0, None),
            ("http://", None, 0, None),
            ("http://a/b c", None, 0, None),
        ] {
            let found = Endpoint::parse(url, protocol);
            assert_eq!(found.as_ref().ok().map(|found| found.protocol.clone()), want, "{url} {protocol:?}: {found:?}");
            if let Ok(found) = found {
                assert!(matches!(found.server.address, Address::Tcp(_, found) if found == port), "{url}");
                assert_eq!(found.server.url, url);
            }
        }
        let unix = Endpoint::parse("http://unix:/run/otel.sock", None).unwrap();
        assert_eq!((unix.server.address, unix.protocol), (Address::Unix("/run/otel.sock".into()), Protocol::Grpc));
    }
}
