//! Questions and answers as bytes (RFC 1035, section 4).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use super::{Records, Service};

/// Records of one answer that count: more servers behind one name are a mistake or an attack.
const MOST_RECORDS: usize = 256;

/// Bytes of a header.
const HEADER: usize = 12;

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A.
    V4,
    /// AAAA.
    V6,
    /// SRV.
    Service,
}

/// What stands in a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Data {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Service(Service),
}

/// What came is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Reply {
    /// No answer to our question.
    Other,
    /// Too long for a datagram.
    Truncated,
    /// Records; possibly none of the kind that was asked for.
    Found(Records<Data>),
    /// There is no such name.
    NoName,
    /// Not said, and why.
    Refused(&'static str),
}

/// Writes a question; nothing where this cannot be a name.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let kind = match kind {
        Kind::V4 => TYPE::A,
        Kind::V6 => TYPE::AAAA,
        Kind::Service => TYPE::SRV,
    };
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).ok()?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().ok()
}

/// Reads what came in answer to `question`. The error says that nobody could read it.
pub(super) fn reply(question: &[u8], bytes: &[u8]) -> Result<Reply, simple_dns::SimpleDnsError> {
    let is_ours = bytes.len() >= HEADER && bytes[..2] == question[..2] && bytes[2] & 0x80 != 0;
    if !is_ours {
        return Ok(Reply::Other);
    }
    // What is left of an answer that was cut may end within a record.
    if bytes[2] & 0x02 != 0 {
        return Ok(Reply::Truncated);
    }
    let packet = Packet::parse(bytes)?;
    if !repeats(question, &packet) {
        return Ok(Reply::Other);
    }
    Ok(match packet.rcode() {
        RCODE::NoError => Reply::Found(records(&packet)),
        RCODE::NameError => Reply::NoName,
        RCODE::ServerFailure => Reply::Refused("could not find out (SERVFAIL)"),
        RCODE::Refused => Reply::Refused("refuses to say (REFUSED)"),
        RCODE::FormatError => Reply::Refused("does not understand the question (FORMERR)"),
        _ => Reply::Refused("says neither yes nor no"),
    })
}

/// Whether it says what was asked: together with the id and the port what a forger would have to guess. Some refuse
/// without saying what.
fn repeats(question: &[u8], packet: &Packet<'_>) -> bool {
    let Ok(asked) = Packet::parse(question) else { return false };
    match (asked.questions.first(), packet.questions.first()) {
        (Some(asked), Some(said)) => {
            asked.qtype == said.qtype && asked.qname.to_string().eq_ignore_ascii_case(&said.qname.to_string())
        }
        (Some(_), None) => packet.rcode() != RCODE::NoError && packet.rcode() != RCODE::NameError,
        (None, _) => false,
    }
}

fn records(packet: &Packet<'_>) -> Records<Data> {
    // A time with the highest bit set is none (RFC 2181, section 8).
    let ttl = |ttl: u32| if ttl > i32::MAX as u32 { 0 } else { ttl };
    let seconds = packet.answers.iter().map(|record| ttl(record.ttl)).min().unwrap_or(0);
    // The name that an alias leads to is not followed by hand: who is asked has followed it.
    let found = packet.answers.iter().filter(|record| record.class == CLASS::IN).filter_map(|record| {
        Some(match &record.rdata {
            RData::A(a) => Data::V4(a.address.into()),
            RData::AAAA(a) => Data::V6(a.address.into()),
            RData::SRV(srv) => {
                let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
                Data::Service(Service { priority, weight, port, target: srv.target.to_string().to_ascii_lowercase() })
            }
            _ => return None,
        })
    });
    let mut distinct = Vec::new();
    for data in found.take(MOST_RECORDS) {
        if !distinct.contains(&data) {
            distinct.push(data);
        }
    }
    Records { found: distinct, ttl: Duration::from_secs(seconds.into()) }
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA, CNAME, SRV};

    use super::*;

    fn answered(question: &[u8], change: impl FnOnce(&mut Packet<'_>)) -> Vec<u8> {
        let mut packet = Packet::parse(question).unwrap().into_reply();
        change(&mut packet);
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn record(name: &'static str, ttl: u32, data: RData<'static>) -> ResourceRecord<'static> {
        ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, ttl, data)
    }

    #[test]
    fn an_answer_has_the_shortest_time_of_what_led_to_it() {
        let question = question(7, "App.internal", Kind::V4).unwrap();
        let bytes = answered(&question, |packet| {
            packet.answers.push(record("app.internal", 3, RData::CNAME(CNAME(Name::new_unchecked("b.internal")))));
            packet.answers.push(record("b.internal", 60, RData::A(A { address: 0x0a00_0005 })));
            packet.answers.push(record("b.internal", 60, RData::A(A { address: 0x0a00_0005 })));
            packet.answers.push(record("b.internal", 60, RData::AAAA(AAAA { address: 5 })));
        });
        let Reply::Found(records) = reply(&question, &bytes).unwrap() else { panic!() };
        assert_eq!(records.ttl, Duration::from_secs(3));
        assert_eq!(records.found, [Data::V4([10, 0, 0, 5].into()), Data::V6(5.into())]);
    }

    #[test]
    fn a_service_has_a_host_and_a_port() {
        let question = question(7, "_http._tcp.app", Kind::Service).unwrap();
        let target = Name::new_unchecked("Pod-1.app");
        let srv = SRV { priority: 1, weight: 2, port: 8080, target };
        let bytes = answered(&question, |packet| packet.answers.push(record("_http._tcp.app", 9, RData::SRV(srv))));
        let Reply::Found(records) = reply(&question, &bytes).unwrap() else { panic!() };
        let service = Service { priority: 1, weight: 2, port: 8080, target: "pod-1.app".to_owned() };
        assert_eq!(records.found, [Data::Service(service)]);
    }

    #[test]
    fn what_answers_another_question_is_no_answer() {
        let question = question(7, "app.internal", Kind::V4).unwrap();
        let other_id = answered(&super::question(8, "app.internal", Kind::V4).unwrap(), |_| {});
        let other_name = answered(&super::question(7, "evil.internal", Kind::V4).unwrap(), |_| {});
        let other_kind = answered(&super::question(7, "app.internal", Kind::V6).unwrap(), |_| {});
        let unasked = answered(&question, |packet| packet.questions.clear());
        for bytes in [other_id, other_name, other_kind, unasked, question.clone(), Vec::new()] {
            assert_eq!(reply(&question, &bytes).unwrap(), Reply::Other);
        }
    }

    #[test]
    fn a_refusal_is_told_from_a_name_that_is_not_there() {
        let question = question(7, "app.internal", Kind::V4).unwrap();
        for (code, want) in [
            (RCODE::NameError, Reply::NoName),
            (RCODE::ServerFailure, Reply::Refused("could not find out (SERVFAIL)")),
            (RCODE::Refused, Reply::Refused("refuses to say (REFUSED)")),
        ] {
            assert_eq!(reply(&question, &answered(&question, |packet| *packet.rcode_mut() = code)).unwrap(), want);
        }
        let mut cut = answered(&question, |packet| packet.set_flags(PacketFlag::TRUNCATION));
        cut.push(0xc0);
        assert_eq!(reply(&question, &cut).unwrap(), Reply::Truncated);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let question = question(7, "app.internal", Kind::V4).unwrap();
        let good = answered(&question, |packet| {
            packet.answers.push(record("app.internal", 3, RData::A(A { address: 1 })));
        });
        // Every byte takes every value: among them pointers to themselves and lengths beyond the end.
        for at in 2..good.len() {
            for value in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = reply(&question, &bytes);
                let _ = reply(&question, &bytes[..at]);
            }
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_not_asked() {
        assert_eq!(question(7, &"a".repeat(64), Kind::V4), None);
    }
}
