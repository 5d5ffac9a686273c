//! Taking one server of an upstream out: the front knows which there are, since names stand for others with time.

use super::Master;
use super::controlling::REPORT_DEADLINE;
use super::events::Event;
use crate::control::Reply;
use crate::server::plan::ToFront;

/// Who waits for a server to get nothing new.
pub(super) struct Drain {
    upstream: String,
    server: String,
    reply: Reply,
}

impl Master {
    /// Has a server of an upstream get nothing new.
    pub(super) async fn drain_server(&mut self, upstream: String, server: Option<String>, reply: Reply) {
        if !self.configuration.upstreams.iter().any(|known| known.name == upstream) {
            return reply.refuse(format!("there is no upstream `{upstream}`"));
        }
        if self.front.pid == 0 {
            return reply.refuse("the front is being started again");
        }
        // Without a name none is meant: the answer says which there are.
        let server = server.unwrap_or_default();
        let number = self.desk.number();
        self.desk.drains.insert(number, Drain { upstream: upstream.clone(), server: server.clone(), reply });
        self.tell_front(ToFront::DrainServer(number, upstream, server)).await;
        self.later(REPORT_DEADLINE, Event::ReportLate(number));
    }

    /// The front has: these were meant, of all these.
    pub(super) fn drained(&mut self, number: u64, meant: &[String], all: &[String]) {
        let Some(Drain { upstream, server, reply }) = self.desk.drains.remove(&number) else { return };
        if meant.is_empty() {
            return reply.refuse(format!("say which server of `{upstream}`: {}", all.join(", ")));
        }
        let others = if meant == [server.as_str()] { String::new() } else { format!(" ({})", meant.join(", ")) };
        reply.done(format!("{server}{others} of `{upstream}` gets nothing new until the next reload"));
    }

    /// The front has not answered in time.
    pub(super) fn drain_late(&mut self, number: u64) {
        if let Some(Drain { server, reply, .. }) = self.desk.drains.remove(&number) {
            reply.refuse(format!("whether {server} gets nothing new is not known: the front does not answer"));
        }
    }
}
