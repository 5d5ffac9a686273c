//! What a client hears that there is no room for.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::accept::Accepted;

/// Said without having read the request: it is the same for all.
const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nServer: daemun\r\nRetry-After: 1\r\n\
Content-Type: text/plain; charset=utf-8\r\nContent-Length: 50\r\nConnection: close\r\n\r\n\
Too many connections. Try again in a few seconds.\n";

/// How long the client may take to read it. Closing with unread bytes would make the kernel send a reset, which can
/// overtake the answer.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of the request that are read and dropped meanwhile.
const MAX_DROPPED: usize = 64 * 1024;

/// Says 503 and closes.
pub async fn refuse(accepted: Accepted) {
    let _ = timeout(LINGER, async {
        match accepted {
            Accepted::Tcp(mut stream, _) => answer(&mut stream).await,
            Accepted::Unix(mut stream) => answer(&mut stream).await,
        }
    })
    .await;
}

async fn answer(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    if stream.write_all(ANSWER).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let mut dropped = 0;
    let mut buffer = [0; 4096];
    while dropped < MAX_DROPPED {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => dropped += read,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_length_is_right() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
