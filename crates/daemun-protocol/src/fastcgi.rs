//! FastCGI 1.0: records between a web server and an application server, and the name-value pairs in them. Both sides.
//!
//! Section numbers are those of the FastCGI Specification (Open Market, 1996).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::pairs::Pair;

/// The only version (section 3.3).
pub const VERSION: u8 = 1;

/// Bytes before the content of a record.
pub const HEADER: usize = 8;

/// Bytes of content that one record can have.
pub const MAX_CONTENT: usize = 65_535;

/// Bytes of content that we put into one record of a stream: the most that needs no padding to end at eight bytes.
const USUAL_CONTENT: usize = 65_528;

/// The only role that is spoken: a request in, an answer out (section 6.2).
pub const RESPONDER: u16 = 1;

/// `FCGI_KEEP_CONN`: the application does not close the connection after the request (section 5.1).
pub const KEEP_CONN: u8 = 1;

/// What an application can be asked for with [`Kind::GetValues`] (section 4.1).
pub const VALUES: [&str; 3] = ["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"];

/// What a record is (section 8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// A request begins.
    BeginRequest = 1,
    /// The web server no longer wants it.
    AbortRequest = 2,
    /// It is over.
    EndRequest = 3,
    /// Its environment, a stream of pairs.
    Params = 4,
    /// Its body, a stream.
    Stdin = 5,
    /// The answer, a stream.
    Stdout = 6,
    /// What the application complains of, a stream.
    Stderr = 7,
    /// A second input of filters.
    Data = 8,
    /// What can the application do?
    GetValues = 9,
    /// This.
    GetValuesResult = 10,
    /// A management record that the application does not know.
    UnknownType = 11,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::BeginRequest,
        Self::AbortRequest,
        Self::EndRequest,
        Self::Params,
        Self::Stdin,
        Self::Stdout,
        Self::Stderr,
        Self::Data,
        Self::GetValues,
        Self::GetValuesResult,
        Self::UnknownType,
    ];

    /// The kind of this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == number)
    }
}

/// How a request ended, in the words of the protocol (section 5.5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Ending {
    /// Well, as far as the protocol goes.
    Complete = 0,
    /// The application takes one request at a time on a connection.
    CannotMultiplex = 1,
    /// It has too much to do.
    Overloaded = 2,
    /// It does not know the role.
    UnknownRole = 3,
}

/// A record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// What it is, as a number: a kind that is not known may stand in a management record.
    pub kind: u8,
    /// Which request it belongs to; 0 for the connection itself (section 3.3).
    pub id: u16,
    /// What it holds, without its padding.
    pub content: Bytes,
}

/// Why bytes are no FastCGI. The connection cannot go on: nobody knows where the next record begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Another version.
    #[error("it is no FastCGI of version 1")]
    Version,
    /// Content of the wrong length.
    #[error("a record has not the length that its kind asks for")]
    Length,
    /// Pairs that end within a name or value.
    #[error("name-value pairs end before their time")]
    Pairs,
    /// An ending that does not exist.
    #[error("a request ended in a way that does not exist")]
    Ending,
}

/// Takes the next record out of `input`, where all of it is there.
pub fn take_record(input: &mut BytesMut) -> Result<Option<Record>, Malformed> {
    let Some(Seen { kind, id, length, whole }) = see_record(input)? else { return Ok(None) };
    let mut record = input.split_to(whole).freeze();
    record.advance(HEADER);
    record.truncate(length);
    Ok(Some(Record { kind, id, content: record }))
}

/// What the header of a record says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen {
    /// As in [`Record`].
    pub kind: u8,
    /// As in [`Record`].
    pub id: u16,
    /// Bytes of its content, which begins behind the [`HEADER`].
    pub length: usize,
    /// Bytes of all of it, header and padding included.
    pub whole: usize,
}

/// The next record at the beginning of `input`, where all of it is there: for whoever takes it out himself.
pub fn see_record(input: &[u8]) -> Result<Option<Seen>, Malformed> {
    let Some(header) = input.first_chunk::<HEADER>() else {
        return if input.first().is_some_and(|&version| version != VERSION) {
            Err(Malformed::Version)
        } else {
            Ok(None)
        };
    };
    let [version, kind, id1, id0, length1, length0, padding, _] = *header;
    if version != VERSION {
        return Err(Malformed::Version);
    }
    let length = usize::from(u16::from_be_bytes([length1, length0]));
    let whole = HEADER + length + usize::from(padding);
    Ok((input.len() >= whole).then_some(Seen { kind, id: u16::from_be_bytes([id1, id0]), length, whole }))
}

/// Appends a record. Content beyond [`MAX_CONTENT`] is left out: streams go through [`put_stream`].
pub fn put_record(out: &mut impl BufMut, kind: Kind, id: u16, content: &[u8]) {
    let content = &content[..content.len().min(MAX_CONTENT)];
    out.put_slice(&header(kind, id, content.len() as u16));
    out.put_slice(content);
}

fn header(kind: Kind, id: u16, length: u16) -> [u8; HEADER] {
    let ([id1, id0], [length1, length0]) = (id.to_be_bytes(), length.to_be_bytes());
    [VERSION, kind as u8, id1, id0, length1, length0, 0, 0]
}

/// Appends bytes of a stream in as many records as they need; none for no bytes, since an empty one ends the stream.
pub fn put_stream(out: &mut impl BufMut, kind: Kind, id: u16, bytes: &[u8]) {
    for part in bytes.chunks(USUAL_CONTENT) {
        put_record(out, kind, id, part);
    }
}

/// Appends the beginning of a request for a responder.
pub fn put_begin(out: &mut impl BufMut, id: u16, keeps_connection: bool) {
    let [role1, role0] = RESPONDER.to_be_bytes();
    let flags = if keeps_connection { KEEP_CONN } else { 0 };
    put_record(out, Kind::BeginRequest, id, &[role1, role0, flags, 0, 0, 0, 0, 0]);
}

/// Appends the end of a request.
pub fn put_end(out: &mut impl BufMut, id: u16, status: u32, ending: Ending) {
    let [a, b, c, d] = status.to_be_bytes();
    put_record(out, Kind::EndRequest, id, &[a, b, c, d, ending as u8, 0, 0, 0]);
}

/// Appends the environment of a request: all its pairs, and the end of the stream.
pub fn put_params<'a>(out: &mut impl BufMut, id: u16, pairs: impl Iterator<Item = Pair<'a>>) {
    let mut text = BytesMut::with_capacity(2048);
    for (name, value) in pairs {
        put_pair(&mut text, name, value);
    }
    put_stream(out, Kind::Params, id, &text);
    put_record(out, Kind::Params, id, b"");
}

/// The beginning of a request while it is written: its pairs, in the place where they are sent from.
#[derive(Debug)]
pub struct Beginning(BytesMut);

impl Beginning {
    /// Bytes before the first pair: the record that begins the request, and the header of its environment.
    const BEFORE: usize = HEADER + 8 + HEADER;

    /// With room for so many bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let mut out = BytesMut::with_capacity(Self::BEFORE + capacity);
        out.put_bytes(0, Self::BEFORE);
        Self(out)
    }

    /// Appends a name and its value.
    pub fn put(&mut self, name: &[u8], value: &[u8]) {
        self.put_lengths(name.len(), value.len());
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(value);
    }

    /// Appends a name in two parts, the second as `write` makes its bytes, and its value.
    pub fn put_made(&mut self, before: &[u8], name: &[u8], write: impl Fn(u8) -> u8, value: &[u8]) {
        self.put_lengths(before.len() + name.len(), value.len());
        self.0.extend_from_slice(before);
        let begin = self.0.len();
        self.0.extend_from_slice(name);
        self.0[begin..].iter_mut().for_each(|byte| *byte = write(*byte));
        self.0.extend_from_slice(value);
    }

    /// All of it as it is sent: the same as of [`put_begin`] and [`put_params`].
    #[must_use]
    pub fn finish(self, id: u16, keeps_connection: bool) -> BytesMut {
        let mut out = self.0;
        let length = out.len() - Self::BEFORE;
        if !(1..=USUAL_CONTENT).contains(&length) {
            let pairs = out.split_off(Self::BEFORE);
            out.clear();
            put_begin(&mut out, id, keeps_connection);
            put_stream(&mut out, Kind::Params, id, &pairs);
            put_record(&mut out, Kind::Params, id, b"");
            return out;
        }
        let mut begun = &mut out[..Self::BEFORE];
        put_begin(&mut begun, id, keeps_connection);
        begun.put_slice(&header(Kind::Params, id, length as u16));
        put_record(&mut out, Kind::Params, id, b"");
        out
    }

    fn put_lengths(&mut self, name: usize, value: usize) {
        // Once for the four things that follow.
        self.0.reserve(2 * size_of::<u32>() + name + value);
        match (u8::try_from(name), u8::try_from(value)) {
            (Ok(name @ 0..=127), Ok(value @ 0..=127)) => self.0.extend_from_slice(&[name, value]),
            _ => [name, value].into_iter().for_each(|length| put_length(&mut self.0, length)),
        }
    }
}

/// Role and whether the connection is kept (section 5.1).
pub fn parse_begin(content: &[u8]) -> Result<(u16, bool), Malformed> {
    let [role1, role0, flags, ..] = *content else { return Err(Malformed::Length) };
    if content.len() != 8 {
        return Err(Malformed::Length);
    }
    Ok((u16::from_be_bytes([role1, role0]), flags & KEEP_CONN != 0))
}

/// The application's own status, and how the request ended (section 5.5).
pub fn parse_end(content: &[u8]) -> Result<(u32, Ending), Malformed> {
    let &[a, b, c, d, ending, _, _, _] = content else { return Err(Malformed::Length) };
    let ending = match ending {
        0 => Ending::Complete,
        1 => Ending::CannotMultiplex,
        2 => Ending::Overloaded,
        3 => Ending::UnknownRole,
        _ => return Err(Malformed::Ending),
    };
    Ok((u32::from_be_bytes([a, b, c, d]), ending))
}

/// Appends a name and its value (section 3.4).
pub fn put_pair(out: &mut impl BufMut, name: &[u8], value: &[u8]) {
    put_length(out, name.len());
    put_length(out, value.len());
    out.put_slice(name);
    out.put_slice(value);
}

fn put_length(out: &mut impl BufMut, length: usize) {
    match u8::try_from(length) {
        Ok(length @ 0..=127) => out.put_u8(length),
        _ => out.put_u32(length as u32 | 1 << 31),
    }
}

/// The names and values in `content`, which is all of a stream.
pub fn parse_pairs(mut content: &[u8]) -> Result<Vec<Pair<'_>>, Malformed> {
    let mut pairs = Vec::new();
    while !content.is_empty() {
        let (name, value) = (take_length(&mut content)?, take_length(&mut content)?);
        let name = take(&mut content, name)?;
        pairs.push((name, take(&mut content, value)?));
    }
    Ok(pairs)
}

fn take_length(content: &mut &[u8]) -> Result<usize, Malformed> {
    let first = content.first().ok_or(Malformed::Pairs)?;
    if first & 0x80 == 0 {
        return content.try_get_u8().map(usize::from).map_err(|_| Malformed::Pairs);
    }
    content.try_get_u32().map(|length| (length & !(1 << 31)) as usize).map_err(|_| Malformed::Pairs)
}

fn take<'a>(content: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = content.split_at_checked(length).ok_or(Malformed::Pairs)?;
    *content = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::pairs;

    fn records(bytes: &[u8]) -> Vec<Record> {
        let mut input = BytesMut::from(bytes);
        let mut found = Vec::new();
        while let Some(record) = take_record(&mut input).unwrap() {
            found.push(record);
        }
        assert!(input.is_empty());
        found
    }

    #[test]
    fn a_beginning_in_one_piece_is_what_its_records_are() {
        let long = vec![b'v'; 200];
        for (count, id) in [(0, 1), (1, 1), (3, 500), (400, 7), (2000, 65_535)] {
            for value in [&b""[..], b"short", &long] {
                let names: Vec<_> = (0..count).map(|number| format!("HTTP_X_{number}")).collect();
                let (mut beginning, mut want) = (Beginning::with_capacity(64), BytesMut::new());
                for (at, name) in names.iter().enumerate() {
                    if at % 2 == 0 {
                        beginning.put(name.as_bytes(), value);
                    } else {
                        let rest = name[5..].to_ascii_lowercase().replace('_', "-");
                        let write = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() };
                        beginning.put_made(b"HTTP_", rest.as_bytes(), write, value);
                    }
                }
                put_begin(&mut want, id, true);
                put_params(&mut want, id, names.iter().map(|name| (name.as_bytes(), value)));
                assert!(beginning.finish(id, true) == want, "{count} of {} bytes", value.len());
            }
        }
    }

    #[test]
    fn a_request_arrives_as_it_was_written() {
        let mut out = Vec::new();
        put_begin(&mut out, 7, true);
        put_params(&mut out, 7, pairs(b"A\0b\0LONG\0\0"));
        put_stream(&mut out, Kind::Stdin, 7, b"body");
        put_record(&mut out, Kind::Stdin, 7, b"");
        let found = records(&out);
        let kinds: Vec<_> = found.iter().map(|record| (Kind::from_number(record.kind), record.id)).collect();
        let of = |kind| (Some(kind), 7);
        let stream = [Kind::BeginRequest, Kind::Params, Kind::Params, Kind::Stdin, Kind::Stdin].map(of);
        assert_eq!(kinds, stream);
        assert_eq!(parse_begin(&found[0].content), Ok((RESPONDER, true)));
        assert_eq!(parse_pairs(&found[1].content).unwrap(), [(&b"A"[..], &b"b"[..]), (b"LONG", b"")]);
        assert_eq!((&found[2].content[..], &found[3].content[..]), (&b""[..], &b"body"[..]));
    }

    #[test]
    fn lengths_of_pairs_are_short_up_to_127_and_long_beyond() {
        for length in [0, 1, 127, 128, 255, 65_536] {
            let (name, value) = (vec![b'n'; length], vec![b'v'; length]);
            let mut out = Vec::new();
            put_pair(&mut out, &name, &value);
            let extra = if length > 127 { 8 } else { 2 };
            assert_eq!(out.len(), 2 * length + extra);
            assert_eq!(parse_pairs(&out).unwrap(), [(&name[..], &value[..])]);
        }
        for cut in [&b"\x01"[..], b"\x02\x00a", b"\x80\x00\x00", b"\xff\xff\xff\xff\x00a", b"\x00\x80\x00\x00"] {
            assert_eq!(parse_pairs(cut), Err(Malformed::Pairs), "{}", cut.escape_ascii());
        }
    }

    #[test]
    fn padding_is_skipped_and_a_record_that_is_not_whole_is_waited_for() {
        let whole = b"\x01\x06\x00\x01\x00\x02\x03\x00okPPP";
        for end in 0..whole.len() {
            assert_eq!(take_record(&mut BytesMut::from(&whole[..end])), Ok(None), "{end}");
        }
        assert_eq!(records(whole), [Record { kind: 6, id: 1, content: Bytes::from_static(b"ok") }]);
        for other in [&b"HTTP/1.1 400"[..], b"\x02", b"\x00\x06\x00\x01\x00\x00\x00\x00"] {
            assert_eq!(take_record(&mut BytesMut::from(other)), Err(Malformed::Version));
        }
    }

    #[test]
    fn a_long_stream_becomes_records_that_end_at_eight_bytes() {
        let mut out = Vec::new();
        put_stream(&mut out, Kind::Stdout, 1, &vec![b'x'; 2 * USUAL_CONTENT + 1]);
        let lengths: Vec<_> = records(&out).iter().map(|record| record.content.len()).collect();
        assert_eq!(lengths, [USUAL_CONTENT, USUAL_CONTENT, 1]);
        out.clear();
        put_stream(&mut out, Kind::Stdout, 1, b"");
        assert!(out.is_empty(), "an empty record would end the stream");
    }

    #[test]
    fn beginnings_and_ends_have_eight_bytes() {
        let mut out = Vec::new();
        put_end(&mut out, 2, 258, Ending::Overloaded);
        assert_eq!(parse_end(&records(&out)[0].content), Ok((258, Ending::Overloaded)));
        assert_eq!(parse_end(b"\0\0\0\0\x04\0\0\0"), Err(Malformed::Ending));
        for wrong in [&b""[..], b"\0\x01\0", b"\0\x01\0\0\0\0\0\0\0"] {
            assert_eq!(parse_begin(wrong), Err(Malformed::Length));
            assert_eq!(parse_end(wrong), Err(Malformed::Length));
        }
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_is_read_was_there() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..20_000 {
            let mut bytes = vec![VERSION];
            for _ in 0..40 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                // Small numbers, so that many records are whole.
                bytes.push(if seed.is_multiple_of(4) { seed as u8 } else { (seed >> 8) as u8 % 12 });
            }
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(record)) = take_record(&mut input) {
                assert!(record.content.len() <= bytes.len(), "round {round}");
                for (name, value) in parse_pairs(&record.content).unwrap_or_default() {
                    assert!(name.len() + value.len() < record.content.len());
                }
                let _ = (parse_begin(&record.content), parse_end(&record.content));
            }
        }
    }
}
