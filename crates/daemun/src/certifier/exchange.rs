//! One request and its answer: towards an authority over TLS, towards ourselves plain. Each has a connection of its own.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::http::Method;
use crate::http::h1::{AnswerFraming, AnswerHead, ChunkedDecoder, Decoded, HeadLimits, parse_answer, scan_answer};

/// How long a request may take with everything.
const DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of an answer: a chain of certificates has some ten thousand.
const MOST: usize = 1 << 20;

/// Bytes of its head.
const MOST_HEAD: usize = 64 << 10;

/// The authority as instant-acme reaches it.
pub(super) struct Authority {
    connector: TlsConnector,
    /// What the last answer that was none of success has said about asking again.
    retry_after: Arc<Mutex<Option<Duration>>>,
    /// Whether it has answered anything.
    has_answered: Arc<AtomicBool>,
}

impl Authority {
    /// With these authorities' certificates in PEM, or with those that browsers trust.
    pub(super) fn new(authorities: Option<&str>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match authorities {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let certificate = certificate.map_err(|error| format!("`ca_file`: {error}"))?;
                    roots.add(certificate).map_err(|error| format!("`ca_file`: {error}"))?;
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            retry_after: Arc::default(),
            has_answered: Arc::default(),
        })
    }

    /// A second one that shares what is remembered.
    pub(super) fn shared(&self) -> Self {
        let (retry_after, has_answered) = (Arc::clone(&self.retry_after), Arc::clone(&self.has_answered));
        Self { connector: self.connector.clone(), retry_after, has_answered }
    }

    /// Whether it has answered anything: what it never heard counts against no limit of its own.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    /// When the authority wants to be asked again, after a failure.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpClient for Authority {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (connector, retry_after) = (self.connector.clone(), Arc::clone(&self.retry_after));
        let has_answered = Arc::clone(&self.has_answered);
        Box::pin(async move {
            let host = request.uri().host().unwrap_or_default().to_owned();
            let told = |error: io::Error| Error::Other(format!("{host}: {error}").into());
            let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", DEADLINE.as_secs()));
            let asked = timeout(DEADLINE, ask(&connector, request)).await.unwrap_or_else(|_| Err(late()));
            let response = asked.map_err(told)?;
            has_answered.store(true, Ordering::Relaxed);
            if response.status().as_u16() >= 400 {
                let said = response.headers().get("retry-after").and_then(|value| pause(value.as_bytes()));
                *retry_after.lock().unwrap_or_else(PoisonError::into_inner) = said;
            }
            Ok(BytesResponse::from(response))
        })
    }
}

async fn ask(
    connector: &TlsConnector,
    request: http::Request<BodyWrapper<Bytes>>,
) -> io::Result<http::Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await;
    let body = body.to_bytes();
    let uri = &parts.uri;
    if uri.scheme_str() != Some("https") {
        return Err(io::Error::other("an authority is only asked over https"));
    }
    let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(443))).await?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut stream = connector.connect(name, stream).await?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut head = format!("{} {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n", parts.method);
    for (name, value) in &parts.headers {
        let value = value.to_str().map_err(io::Error::other)?;
        head.extend([name.as_str(), ": ", value, "\r\n"]);
    }
    if parts.method == http::Method::POST {
        head.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
    }
    head.push_str("\r\n");
    let mut message = head.into_bytes();
    message.extend_from_slice(&body);
    stream.write_all(&message).await?;
    let method = Method::from_name(parts.method.as_str().as_bytes());
    let (head, body) = answer(&mut stream, method).await?;
    let mut response = http::Response::builder().status(head.status.code());
    for field in head.fields.iter() {
        response = response.header(field.name(), field.value());
    }
    response.body(Full::new(body)).map_err(io::Error::other)
}

/// Asks an address for a path by plain HTTP, under this name.
pub(super) async fn plain(address: SocketAddr, host: &str, path: &str) -> io::Result<(AnswerHead, Bytes)> {
    let mut stream = TcpStream::connect(address).await?;
    let message = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: daemun\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(message.as_bytes()).await?;
    answer(&mut stream, Method::Get).await
}

/// Reads an answer to its end.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), method: Method) -> io::Result<(AnswerHead, Bytes)> {
    let wrong = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut input = BytesMut::new();
    let head = loop {
        let mut from = 0;
        let end = loop {
            if let Some(end) = scan_answer(&input, &mut from).map_err(wrong)? {
                break end;
            }
            if input.len() > MOST_HEAD {
                return Err(wrong("the head of its answer is too long"));
            }
            more(stream, &mut input).await?;
        };
        let head = parse_answer(&input.split_to(end).freeze(), method).map_err(wrong)?;
        if !head.status.is_informational() {
            break head;
        }
    };
    let mut body = BytesMut::new();
    match head.framing {
        AnswerFraming::None => {}
        AnswerFraming::Length(length) => {
            let length = usize::try_from(length).ok().filter(|length| *length <= MOST);
            let length = length.ok_or_else(|| wrong("its answer is too long"))?;
            while input.len() < length {
                more(stream, &mut input).await?;
            }
            body = input.split_to(length);
        }
        AnswerFraming::Chunked => {
            let limits = HeadLimits { max_head: MOST_HEAD, max_request_line: MOST_HEAD, max_fields: 256 };
            let mut decoder = ChunkedDecoder::new(limits);
            loop {
                match decoder.decode(&mut input).map_err(|refusal| wrong(refusal.reason))? {
                    Decoded::Data(data) if body.len() + data.len() <= MOST => body.extend_from_slice(&data),
                    Decoded::Data(_) => return Err(wrong("its answer is too long")),
                    Decoded::Partial => more(stream, &mut input).await?,
                    Decoded::End => break,
                }
            }
        }
        AnswerFraming::UntilClose => {
            let mut rest = stream.take(MOST as u64);
            rest.read_buf(&mut input).await?;
            while rest.read_buf(&mut input).await? > 0 {}
            body = input;
        }
    }
    Ok((head, body.freeze()))
}

async fn more(stream: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> io::Result<()> {
    if stream.read_buf(input).await? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within the answer"));
    }
    Ok(())
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn pause(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], method: Method) -> io::Result<(u16, Bytes)> {
        let (mut ours, mut theirs) = tokio::io::duplex(MOST * 2);
        theirs.write_all(bytes).await.unwrap();
        drop(theirs);
        answer(&mut ours, method).await.map(|(head, body)| (head.status.code(), body))
    }

    #[tokio::test]
    async fn an_answer_of_every_framing_is_read_to_its_end() {
        let told = [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and what follows",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nhello",
        ];
        for told in told {
            assert_eq!(
                read(told.as_bytes(), Method::Get).await.unwrap(),
                (200, Bytes::from_static(b"hello")),
                "{told}"
            );
        }
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(read(head, Method::Head).await.unwrap().1, "");
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_or_too_long_is_none() {
        for told in
            [&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"[..], b"HTTP/1.1 200 OK\r\n", b"", b"SSH-2.0-x\r\n"]
        {
            assert!(read(told, Method::Get).await.is_err());
        }
        let long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", MOST + 1);
        assert!(read(long.as_bytes(), Method::Get).await.is_err());
    }

    #[test]
    fn a_pause_is_told_in_seconds_or_as_a_date() {
        assert_eq!(pause(b" 120"), Some(Duration::from_secs(120)));
        assert_eq!(pause(b"Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert_eq!(pause(b"soon"), None);
    }
}
