//! OTLP over HTTP/1.1: a POST for each batch, on a connection of its own.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::settings::ExporterSettings;
use super::{MOST_ANSWER, Refusal, Taken, later};
use crate::http::h1::{AnswerFraming, BodyDecoder, ChunkedDecoder, Decoded, HeadLimits, parse_answer, scan_answer};
use crate::http::{Method, Status};
use crate::upstream::{Dialer, Socket};

/// Caps of an answer's head and trailers.
const LIMITS: HeadLimits = HeadLimits { max_head: MOST_ANSWER, max_request_line: 0, max_fields: 256 };

/// A collector.
pub(super) struct Post {
    dialer: Dialer,
    /// The head of each request, but for the length.
    head: String,
}

impl Post {
    pub(super) fn new(settings: &ExporterSettings, path: &str) -> Result<Self, String> {
        let server = &settings.endpoint.server;
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: daemun/{}\r\nContent-Type: application/x-protobuf\r\n\
             Connection: close\r\n",
            server.authority(),
            env!("CARGO_PKG_VERSION")
        );
        for (name, value) in &settings.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        Ok(Self { dialer: Dialer::new(server, &settings.tls, b"http/1.1")?, head })
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> Result<Taken, Refusal> {
        let mut socket = self.dialer.connect().await.map_err(later)?.socket;
        let head = format!("{}Content-Length: {}\r\n\r\n", self.head, message.len());
        // A collector may answer, and close, before it has read all: its answer says more than that it did.
        let written = async {
            socket.write_all(head.as_bytes()).await?;
            socket.write_all(message).await?;
            socket.flush().await
        };
        let written: io::Result<()> = written.await;
        let read = read(&mut socket).await;
        let (status, body) = match (written, read) {
            (_, Ok(read)) => read,
            (Err(error), Err(_)) | (Ok(()), Err(error)) => return Err(later(error)),
        };
        match status.code() {
            200..=299 => Ok(Taken::read(&body)),
            code @ (429 | 502..=504) => Err(Refusal::Later(format!("it answered {code} {}", status.reason()))),
            code => Err(Refusal::Never(format!("it answered {code} {}", status.reason()))),
        }
    }
}

/// Reads an answer to its end.
async fn read(socket: &mut Socket) -> io::Result<(Status, Bytes)> {
    let wrong = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut input = BytesMut::new();
    let mut from = 0;
    let head = loop {
        match scan_answer(&input, &mut from).map_err(wrong)? {
            Some(end) => {
                let head = parse_answer(&input.split_to(end).freeze(), Method::Post).map_err(wrong)?;
                if !head.status.is_informational() {
                    break head;
                }
                from = 0;
            }
            None if input.len() > MOST_ANSWER => return Err(wrong("the head of its answer is too long")),
            None => more(socket, &mut input).await?,
        }
    };
    let mut decoder = match head.framing {
        AnswerFraming::None => BodyDecoder::Length(0),
        AnswerFraming::Length(length) => BodyDecoder::Length(length),
        AnswerFraming::Chunked => BodyDecoder::Chunked(ChunkedDecoder::new(LIMITS)),
        AnswerFraming::UntilClose => {
            while input.len() <= MOST_ANSWER && socket.read_buf(&mut input).await? > 0 {}
            return Ok((head.status, input.freeze()));
        }
    };
    let mut body = BytesMut::new();
    loop {
        match decoder.decode(&mut input).map_err(|refusal| wrong(refusal.reason))? {
            Decoded::Data(data) if body.len() + data.len() <= MOST_ANSWER => body.extend_from_slice(&data),
            Decoded::Data(_) => return Err(wrong("its answer is too long")),
            Decoded::Partial => more(socket, &mut input).await?,
            Decoded::End => return Ok((head.status, body.freeze())),
        }
    }
}

async fn more(socket: &mut Socket, input: &mut BytesMut) -> io::Result<()> {
    if socket.read_buf(input).await? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within the answer"));
    }
    Ok(())
}
