//! The codec by itself: properties that do not need a socket.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::time::{ClockId, clock_gettime};

use super::{
    BodyDecoder, ConnectionField, Decoded, Framing, HeadLimits, HeadPlan, HeadScan, Length, Scanned, encode_chunk_size,
    encode_head, parse_head,
};
use crate::http::{Fields, Status};

const LIMITS: HeadLimits = HeadLimits { max_head: 64 * 1024, max_request_line: 16 * 1024, max_fields: 100 };

/// Xorshift: the same seed, the same numbers.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Whether the head is accepted, and how its body is framed, when it comes in pieces of this size.
fn read(bytes: &[u8], step: usize) -> Result<Option<(usize, Framing)>, u16> {
    let mut scan = HeadScan::default();
    for end in (1..=bytes.len()).filter(|end| end % step == 0 || *end == bytes.len()) {
        let scanned = scan.advance(&bytes[..end], &LIMITS).map_err(|refusal| refusal.status.code())?;
        if let Scanned::Complete { start, end } = scanned {
            let head = Bytes::copy_from_slice(&bytes[start..end]);
            let parsed = parse_head(&head, &LIMITS).map_err(|refusal| refusal.status.code())?;
            return Ok(Some((end, parsed.framing)));
        }
    }
    Ok(None)
}

#[test]
fn a_damaged_head_is_read_the_same_however_it_is_cut_and_never_panics() {
    let seed = 0x00da_e30b;
    let mut random = Seeded(seed);
    let heads: [&[u8]; 3] = [
        b"POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n",
        b"GET http://a:80/ HTTP/1.0\r\nHost: a\r\nContent-Length: 12\r\nConnection: close\r\n\r\n",
        b"\r\nOPTIONS * HTTP/1.1\r\nhost: [::1]\r\nExpect: 100-continue\r\n\r\n",
    ];
    let spice = b"\r\n\t\0 :;,\"\\/?#@[]%\x7f\x80\xff019aZ";
    for round in 0..20_000 {
        let mut head = heads[round % heads.len()].to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(head.len());
            match random.below(3) {
                0 => head[at] = spice[random.below(spice.len())],
                1 => head.insert(at, spice[random.below(spice.len())]),
                _ => drop(head.remove(at)),
            }
        }
        let whole = read(&head, head.len());
        for step in [1, 7] {
            let cut = read(&head, step);
            // A piece may show an earlier fault than the whole; it never shows a request where the whole is none.
            assert_eq!(
                cut.is_ok(),
                whole.is_ok(),
                "seed {seed:#x}, round {round}: {:?}",
                head.escape_ascii().to_string()
            );
            if let (Ok(cut), Ok(whole)) = (cut, whole) {
                assert_eq!(cut, whole, "seed {seed:#x}, round {round}: {:?}", head.escape_ascii().to_string());
            }
        }
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_costs_no_more_looks_than_bytes() {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(60_000));
    let mut scan = HeadScan::default();
    let begin = std::time::Instant::now();
    for end in 1..=head.len() {
        scan.advance(&head.as_bytes()[..end], &LIMITS).unwrap();
    }
    // 1.8 thousand million steps if each byte looked at all before it; some ten thousand if not.
    assert!(begin.elapsed() < std::time::Duration::from_millis(500), "{:?}", begin.elapsed());
}

#[test]
fn chunks_that_we_write_are_read_back_whole_under_every_split() {
    let seed = 0xc0de;
    let mut random = Seeded(seed);
    for round in 0..300 {
        let body: Vec<u8> = (0..random.below(20_000)).map(|at| (at % 251) as u8).collect();
        let mut wire = Vec::new();
        let mut rest = &body[..];
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(1 + random.below(rest.len()).min(5000));
            encode_chunk_size(&mut wire, chunk.len());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
            rest = after;
        }
        wire.extend_from_slice(super::LAST_CHUNK);
        wire.extend_from_slice(b"GET");
        let mut decoder = BodyDecoder::new(Framing::Chunked, LIMITS);
        let (mut input, mut got, mut ended) = (BytesMut::new(), Vec::new(), false);
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + random.below(rest.len().min(3000)));
            input.extend_from_slice(piece);
            rest = after;
            loop {
                match decoder.decode(&mut input).unwrap() {
                    Decoded::Data(bytes) => got.extend_from_slice(&bytes),
                    Decoded::Partial => break,
                    Decoded::End => {
                        ended = true;
                        break;
                    }
                }
            }
        }
        assert!(ended && got == body && &input[..] == b"GET", "seed {seed:#x}, round {round}");
    }
}

#[test]
fn a_damaged_chunked_body_never_panics_and_never_ends_twice() {
    let seed = 0xbad_c0de;
    let mut random = Seeded(seed);
    let spice = b"\r\n;=\" \t0123456789abcdefgXx:\0\x7f";
    for _ in 0..20_000 {
        let mut wire = b"5;a=\"b\"\r\nhello\r\n1\r\na\r\n0\r\nX: y\r\n\r\n".to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(wire.len());
            wire[at] = spice[random.below(spice.len())];
        }
        let mut decoder = BodyDecoder::new(Framing::Chunked, LIMITS);
        let mut input = BytesMut::from(&wire[..]);
        let mut length = 0;
        while let Ok(Decoded::Data(bytes)) = decoder.decode(&mut input) {
            length += bytes.len();
        }
        assert!(length <= wire.len(), "seed {seed:#x}");
    }
}

#[test]
fn a_target_that_is_not_utf_8_is_refused() {
    let read = |head: &[u8]| read(head, head.len());
    assert_eq!(read(b"GET /caf\xe9 HTTP/1.1\r\nHost: a\r\n\r\n"), Err(400));
    assert!(read("GET /caf\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes()).is_ok_and(|read| read.is_some()));
}

#[test]
fn shared_fields_are_written_as_others_are() {
    let plan = HeadPlan { length: Length::Known(1), connection: ConnectionField::Absent, sends_body: true };
    let written = |fields: &Fields| {
        let mut out = Vec::new();
        encode_head(&mut out, plan, (Status::OK, None), fields, b"Sun, 06 Nov 1994 08:49:37 GMT");
        String::from_utf8(out).unwrap()
    };
    let begun = Fields::new().with("ETag", "x").with("Connection", "close").with("Content-Length", "7");
    for (name, value) in [("X-A", "1"), ("Server", "other"), ("Date", "then"), ("Trailer", "none")] {
        let all = begun.clone().with(name, value);
        assert_eq!(written(&all.clone().shared()), written(&all));
        assert_eq!(written(&begun.clone().shared().with(name, value)), written(&all), "behind them");
    }
}

/// `cargo test --release -p daemun -- --ignored --nocapture parse_cost`
#[test]
#[ignore = "a measurement"]
fn parse_cost() {
    let short = "GET / HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: x\r\n\r\n".to_owned();
    let browser = "GET /static/css/site.css?v=3 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux \
        x86_64; rv:142.0) Gecko/20100101 Firefox/142.0\r\nAccept: text/css,*/*;q=0.1\r\nAccept-Language: \
        en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://shop.example.com/\r\nConnection: \
        keep-alive\r\nCookie: sessionid=0123456789abcdef0123456789abcdef; csrftoken=abcdef\r\nSec-Fetch-Dest: \
        style\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Site: same-origin\r\n\r\n";
    for (name, head) in [("2 fields", &*short), ("11 fields", browser)] {
        let cpu = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        let rounds = 1_000_000;
        let mut buffer = BytesMut::new();
        let begin = cpu();
        for _ in 0..rounds {
            buffer.reserve(8192);
            buffer.extend_from_slice(head.as_bytes());
            let mut scan = HeadScan::default();
            let Ok(Scanned::Complete { end, .. }) = scan.advance(&buffer, &LIMITS) else { panic!("not complete") };
            let bytes = buffer.split_to(end).freeze();
            std::hint::black_box(parse_head(&bytes, &LIMITS).unwrap());
        }
        println!("{name}: {} ns", cpu().saturating_sub(begin).as_nanos() / rounds);
    }
}
