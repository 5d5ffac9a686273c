//! A connection that has left HTTP: bytes both ways until one side ends (`Upgrade`, RFC 9110, section 7.8).

use std::task::Poll;

use bytes::Bytes;
use tokio::time::Instant;

use super::buffers::READ_SIZE;
use super::current::Current;
use super::life::{Connection, Ending};
use crate::http::h1::encode_switch;
use crate::http::{Fields, Status, Timing, Tunnel};

impl Connection {
    /// Tells the client that the protocol changes, and carries bytes until the far end closes, one side fails, or both
    /// are silent for too long. A client that has closed its sending half still gets what the far end has to say.
    pub(super) async fn tunnel(
        &mut self,
        current: &Current,
        (status, fields, timing): (Status, Fields, Timing),
        mut tunnel: Box<dyn Tunnel>,
    ) -> Ending {
        encode_switch(&mut self.wire.output, status, &fields, tunnel.protocol());
        let patience = tunnel.patience();
        let (mut outbound, mut inbound) = (Bytes::new(), Bytes::new());
        let (mut is_closed, mut is_over) = (false, false);
        let mut carried = 0_u64;
        let mut silent_at = Instant::now() + patience;
        let ending = std::future::poll_fn(|task| {
            loop {
                let mut has_moved = false;
                if outbound.is_empty() && !self.wire.input.is_empty() {
                    outbound = self.wire.input.split().freeze();
                }
                if !outbound.is_empty() {
                    match tunnel.poll_send(task, &mut outbound) {
                        Poll::Ready(Ok(())) => has_moved = true,
                        Poll::Ready(Err(_)) => return Poll::Ready(Ending::Cut),
                        Poll::Pending => {}
                    }
                } else if !self.wire.is_ended {
                    match self.wire.poll_fill(task, READ_SIZE) {
                        Poll::Ready(Ok(_)) => has_moved = true,
                        Poll::Ready(Err(_)) => return Poll::Ready(Ending::Cut),
                        Poll::Pending => {}
                    }
                } else if !is_closed {
                    is_closed = tunnel.poll_close(task).is_ready();
                }
                if inbound.is_empty() && self.wire.output.is_empty() && !is_over {
                    match tunnel.poll_receive(task) {
                        Poll::Ready(Ok(bytes)) => {
                            is_over = bytes.is_empty();
                            carried += bytes.len() as u64;
                            inbound = bytes;
                            has_moved = true;
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(Ending::Cut),
                        Poll::Pending => {}
                    }
                }
                let had_any = !inbound.is_empty() || !self.wire.output.is_empty();
                match self.wire.poll_send(task, &mut inbound) {
                    Poll::Ready(Ok(())) if is_over => return Poll::Ready(Ending::Close),
                    Poll::Ready(Ok(())) => has_moved |= had_any,
                    Poll::Ready(Err(_)) => return Poll::Ready(Ending::Cut),
                    Poll::Pending => {}
                }
                if !has_moved {
                    return self.wire.alarm.poll(task, silent_at).map(|()| Ending::Cut);
                }
                silent_at = Instant::now() + patience;
            }
        })
        .await;
        current.log(status, carried, timing);
        ending
    }
}
