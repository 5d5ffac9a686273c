//! Asking name servers, one after the other, until one knows.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::message::{self, Data, Kind, Reply};
use super::system::System;
use super::{NameServer, Records, ResolveError};

/// What a question came to.
pub(super) type Asked = Result<Records<Data>, ResolveError>;

/// Bytes of a datagram: 512 were promised, and some send more without being asked.
const DATAGRAM: usize = 4096;

/// The records of `name`, which is whole.
pub(super) async fn ask(system: &System, name: &str, kind: Kind) -> Asked {
    let mut last = ResolveError::NoServer;
    for _ in 0..system.attempts {
        for &server in &system.servers {
            let asked = tokio::time::timeout(system.timeout, ask_one(server, name, kind)).await;
            match asked.unwrap_or(Err(ResolveError::Silent(server))) {
                Err(error) if !error.is_final() => last = error,
                known => return known,
            }
        }
    }
    Err(last)
}

async fn ask_one(server: NameServer, name: &str, kind: Kind) -> Asked {
    let broken = |error: io::Error| ResolveError::Broken(server, Arc::new(error));
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).map_err(|error| broken(error.into()))?;
    let Some(question) = message::question(u16::from_be_bytes(id), name, kind) else {
        return Err(ResolveError::NoName);
    };
    let mut reply =
        if server.is_tcp { Reply::Truncated } else { by_datagram(server, &question).await.map_err(broken)? };
    if reply == Reply::Truncated {
        reply = by_stream(server, &question).await.map_err(broken)?;
    }
    match reply {
        Reply::Found(records) => Ok(records),
        Reply::NoName => Err(ResolveError::NoName),
        Reply::Refused(why) => Err(ResolveError::Refused(server, why)),
        Reply::Other | Reply::Truncated => Err(broken(io::Error::other("it answers another question"))),
    }
}

/// Over UDP, from a port that the kernel draws; what does not answer the question is passed over.
async fn by_datagram(server: NameServer, question: &[u8]) -> io::Result<Reply> {
    let any: SocketAddr = match server.address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server.address).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match message::reply(question, &buffer[..length]) {
            Ok(Reply::Other) => {}
            Ok(reply) => return Ok(reply),
            Err(error) => return Err(io::Error::other(format!("its answer cannot be read: {error:?}"))),
        }
    }
}

/// Over TCP, where each message has its length before it (RFC 1035, section 4.2.2).
async fn by_stream(server: NameServer, question: &[u8]) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server.address).await?;
    let mut framed = (question.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(question);
    stream.write_all(&framed).await?;
    let mut bytes = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut bytes).await?;
    message::reply(question, &bytes).map_err(|error| io::Error::other(format!("its answer cannot be read: {error:?}")))
}
