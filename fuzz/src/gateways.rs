//! FastCGI, SCGI and uwsgi, both sides: what a server behind answers, and what a web server in front asks.

use bytes::BytesMut;
use daemun::http::h1::HeadLimits;
use daemun::http::variables::read_variables;
use daemun_protocol::fastcgi::{self, Kind};
use daemun_protocol::pairs::{Pair, pairs};
use daemun_protocol::{scgi, uwsgi};

const LIMITS: HeadLimits = HeadLimits { max_head: 8192, max_request_line: 4096, max_fields: 64 };

/// Bytes that the variables of a request may have.
const MOST: usize = 8192;

/// Records come off the stream the same however they come in, are what was put in, and their content is read within its
/// bounds, for whichever side it is meant.
pub(crate) fn fastcgi(data: &[u8]) {
    let mut whole = BytesMut::from(data);
    let mut stepped = BytesMut::new();
    let mut rest = data.iter();
    let mut params = Vec::new();
    loop {
        let record = fastcgi::take_record(&mut whole);
        let other = loop {
            match fastcgi::take_record(&mut stepped) {
                Ok(None) => match rest.next() {
                    Some(&byte) => stepped.extend_from_slice(&[byte]),
                    None => break Ok(None),
                },
                other => break other,
            }
        };
        assert_eq!(record, other, "at once and in pieces");
        let Ok(Some(record)) = record else { break };
        let parts = (fastcgi::parse_begin(&record.content), fastcgi::parse_end(&record.content));
        assert!(parts.0.is_err() || record.content.len() == 8, "a beginning of {} bytes", record.content.len());
        assert!(parts.1.is_err() || record.content.len() == 8, "an end of {} bytes", record.content.len());
        if let Some(kind) = Kind::from_number(record.kind) {
            let mut again = BytesMut::new();
            fastcgi::put_record(&mut again, kind, record.id, &record.content);
            assert_eq!(fastcgi::take_record(&mut again), Ok(Some(record.clone())));
            assert!(again.is_empty());
        }
        if record.kind == Kind::Params as u8 {
            params.extend_from_slice(&record.content);
        }
    }
    let Ok(said) = fastcgi::parse_pairs(&params) else { return };
    let mut written = BytesMut::new();
    for (name, value) in &said {
        fastcgi::put_pair(&mut written, name, value);
    }
    // A short length may have been written in four bytes, never the other way round.
    assert!(written.len() <= params.len(), "pairs out of nothing");
    assert_eq!(fastcgi::parse_pairs(&written).as_deref(), Ok(&said[..]));
    variables(&said);
}

/// A head is found at the same place under every split, its pairs are all of it, and one that is written is read the same.
pub(crate) fn scgi(data: &[u8]) {
    let whole = scgi::parse_head(data, MOST);
    let stepped = (1..=data.len()).find_map(|end| scgi::parse_head(&data[..end], MOST).transpose());
    assert_eq!(whole.transpose(), stepped, "at once and in pieces");
    let Some(Ok(head)) = stepped else { return };
    let said: Vec<Pair<'_>> = pairs(head.pairs).collect();
    assert_eq!(said.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>(), head.pairs.len());
    assert!(head.length <= data.len() && data[head.length - 1] == b',');
    let mut written = Vec::new();
    scgi::put_head(&mut written, head.content_length, said.iter().copied());
    let again = scgi::parse_head(&written, 2 * MOST).expect("our own head").expect("all of it");
    assert_eq!((again.length, again.content_length), (written.len(), head.content_length));
    variables(&said);
}

/// A packet ends where its length says, and its pairs are all of it.
pub(crate) fn uwsgi(data: &[u8]) {
    let whole = uwsgi::parse_packet(data);
    let stepped = (1..=data.len()).find_map(|end| uwsgi::parse_packet(&data[..end]));
    assert_eq!(whole, stepped, "at once and in pieces");
    let Some(packet) = whole else { return };
    assert_eq!(packet.length, uwsgi::HEADER + packet.content.len());
    let Ok(said) = uwsgi::parse_pairs(packet.content) else { return };
    let mut written = Vec::new();
    uwsgi::put_packet(&mut written, packet.modifier1, said.iter().copied()).expect("it was a packet");
    assert_eq!(written[uwsgi::HEADER..], *packet.content, "pairs are written as they were read");
    variables(&said);
}

/// Variables give one head or none, from a peer that is trusted and from one that is not.
fn variables(said: &[Pair<'_>]) {
    for is_trusted in [true, false] {
        let Ok(read) = read_variables(said, is_trusted, &LIMITS) else { continue };
        let head = &read.head;
        let clean = |text: &[u8]| text.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        assert!(!head.method_name().is_empty() && head.method_name() != "CONNECT");
        assert!(head.target().iter().all(|&byte| byte > b' ' && byte != 0x7f && byte != b'#'));
        assert!(head.raw_path().starts_with(b"/") || head.raw_path() == b"*", "{:?}", head.raw_path());
        for name in ["host", "content-length", "content-type", "transfer-encoding", "connection"] {
            assert!(head.field_values(name).count() <= 1, "{name} twice");
        }
        assert!(head.field("transfer-encoding").is_none() && head.field("connection").is_none());
        for (name, value) in head.fields() {
            assert!(
                !name.is_empty() && name.iter().all(|&byte| byte.is_ascii_graphic() && byte != b':' && byte != b'_')
            );
            assert!(clean(value) && value.trim_ascii() == value, "{value:?}");
        }
        if let (Some(field), Some(length)) = (head.field("content-length"), read.length) {
            assert_eq!(field.iter().fold(0_u128, |sum, digit| sum * 10 + u128::from(digit - b'0')), length.into());
        }
        let is_told = read.endpoint.is_some() || read.user.is_some() || !read.script_name.is_empty();
        assert!(is_trusted || !is_told, "a stranger's word about the client was heard");
        assert!(read.user.iter().all(|user| clean(user.as_bytes())));
    }
}
