//! Reading a request head (RFC 9112, sections 2 to 6).
//!
//! `httparse` cuts the head into method, target, version, names and values; what follows from them, and everything
//! that could be read in two ways, is decided here, in one walk over the fields.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};

use super::authority::is_authority;
use super::{HeadLimits, Refusal};
use crate::http::fields::is_token;
use crate::http::{HeadBuilder, Method, RequestHead, Status, Version};

/// Fields that a head can have at the most, whatever the settings say: they are cut into an array on the stack.
const MAX_FIELDS: usize = 256;

/// Bytes of a method. The longest registered one, `UPDATEREDIRECTREF`, has 17.
pub(in crate::http) const MAX_METHOD: usize = 32;

/// A head and what it says about the connection.
#[derive(Debug)]
pub struct ParsedHead {
    /// Method, target and fields.
    pub head: RequestHead,
    /// Whether and how a body follows.
    pub framing: Framing,
    /// Whether the client would go on after the answer (RFC 9112, section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for a 100 before it sends the body (RFC 9110, section 10.1.1).
    pub expect_continue: bool,
}

/// How the body of a request is framed (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// No body.
    None,
    /// This many bytes; never 0.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// Reads a head that [`HeadScan`](super::HeadScan) found complete.
pub fn parse_head(bytes: &Bytes, limits: &HeadLimits) -> Result<ParsedHead, Refusal> {
    // Uninitialized: clearing it would cost more than reading a short head.
    let mut room = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let allowed = limits.max_fields.min(MAX_FIELDS);
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut room[..allowed]) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(Refusal::bad("the head does not end where its lines do")),
        Err(httparse::Error::Version) => return parse_later_minor(bytes, limits),
        Err(error) => return Err(refusal_for(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::bad("the request line is not complete"));
    };
    if method.len() > MAX_METHOD {
        return Err(Refusal::new(Status::NOT_IMPLEMENTED, "the method is too long"));
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let mut facts = Facts::default();
    for field in request.headers.iter() {
        facts.take(field.name.as_bytes(), field.value)?;
    }
    let target = Target::parse(Method::from_name(method.as_bytes()), target.as_bytes())?;
    let authority = facts.authority(version, &target)?;
    let mut builder = HeadBuilder::new(bytes.clone(), version, method.as_bytes(), target.whole);
    builder.path(target.path, target.query);
    builder.authority(authority);
    for field in request.headers.iter() {
        // An absolute target's authority replaces `Host` (RFC 9112, section 3.2.2), for whoever looks at the field too.
        let is_host = field.name.eq_ignore_ascii_case("host");
        builder.field(field.name.as_bytes(), if is_host { authority } else { field.value });
    }
    Ok(ParsedHead {
        head: builder.finish(),
        framing: facts.framing(version)?,
        keep_alive: facts.connection.goes_on(version == Version::Http11),
        expect_continue: facts.expect_continue && version == Version::Http11,
    })
}

/// HTTP/1.2 to 1.9 would be read as 1.1 (RFC 9110, section 6.2). Nobody sends them, so the copy may cost.
fn parse_later_minor(bytes: &[u8], limits: &HeadLimits) -> Result<ParsedHead, Refusal> {
    let end = memchr::memchr(b'\r', bytes).unwrap_or(bytes.len());
    if end < 9 || !bytes[..end - 1].ends_with(b" HTTP/1.") || !matches!(bytes[end - 1], b'2'..=b'9') {
        return Err(Refusal::bad("the request line is malformed"));
    }
    let mut copy = BytesMut::from(bytes);
    copy[end - 1] = b'1';
    parse_head(&copy.freeze(), limits)
}

fn refusal_for(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::HeaderName => Refusal::bad("a field name is not a token, or space stands before its colon"),
        httparse::Error::HeaderValue => Refusal::bad("a field value holds a control character"),
        httparse::Error::TooManyHeaders => {
            Refusal::over(Status::FIELDS_TOO_LARGE, "there are too many fields", "max_fields")
        }
        httparse::Error::NewLine => Refusal::bad("a line does not end in CRLF"),
        _ => Refusal::bad("the request line is malformed"),
    }
}

/// The request target (RFC 9112, section 3.2).
struct Target<'a> {
    whole: &'a [u8],
    authority: Option<&'a [u8]>,
    path: &'a [u8],
    query: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    fn parse(method: Method, whole: &'a [u8]) -> Result<Self, Refusal> {
        if method == Method::Connect {
            return Err(Refusal::new(Status::NOT_IMPLEMENTED, "CONNECT is not implemented"));
        }
        if whole == b"*" && method == Method::Options {
            return Ok(Self { whole, authority: None, path: whole, query: None });
        }
        // A fragment is never sent (RFC 9112, section 3.2): who cuts it off and who does not would disagree.
        if memchr::memchr(b'#', whole).is_some() {
            return Err(Refusal::bad("the target holds a fragment"));
        }
        if whole.first() == Some(&b'/') {
            let (path, query) = split_query(whole);
            return Ok(Self { whole, authority: None, path, query });
        }
        Self::absolute(whole)
    }

    /// `absolute-form` (section 3.2.2). Servers must take it though only proxies are sent it.
    fn absolute(whole: &'a [u8]) -> Result<Self, Refusal> {
        let behind = ["http://", "https://"]
            .iter()
            .find_map(|scheme| {
                whole.get(..scheme.len()).filter(|begin| begin.eq_ignore_ascii_case(scheme.as_bytes()))?;
                Some(scheme.len())
            })
            .ok_or(Refusal::bad("the target is neither a path nor a URL"))?;
        let rest = &whole[behind..];
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let authority = &rest[..end];
        if !is_authority(authority) {
            return Err(Refusal::bad("the authority of the target is not valid"));
        }
        let (path, query) = split_query(&rest[end..]);
        // An empty path is `/`: the slash before the authority lends itself.
        let path = if path.is_empty() { &whole[behind - 1..behind] } else { path };
        Ok(Self { whole, authority: Some(authority), path, query })
    }
}

fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(mark) => (&target[..mark], Some(&target[mark + 1..])),
        None => (target, None),
    }
}

/// What the fields say about framing and the connection.
#[derive(Default)]
struct Facts<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    connection: Asked,
    expect_continue: bool,
}

/// What `Connection` asks; the last one wins over those before it (RFC 9112, section 9.3).
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Asked {
    #[default]
    Nothing,
    KeepAlive,
    Close,
}

impl Asked {
    /// What this option asks.
    pub(super) fn by(option: &[u8]) -> Self {
        match option.len() {
            5 if option.eq_ignore_ascii_case(b"close") => Self::Close,
            10 if option.eq_ignore_ascii_case(b"keep-alive") => Self::KeepAlive,
            _ => Self::Nothing,
        }
    }

    /// Whether the connection goes on.
    pub(super) fn goes_on(self, is_http11: bool) -> bool {
        match self {
            Self::Close => false,
            Self::KeepAlive => true,
            Self::Nothing => is_http11,
        }
    }
}

impl<'a> Facts<'a> {
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Refusal> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.take_host(value),
            6 if name.eq_ignore_ascii_case(b"expect") => self.take_expect(value),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.take_connection(value);
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.take_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.take_coding(value),
            _ => Ok(()),
        }
    }

    fn take_host(&mut self, value: &'a [u8]) -> Result<(), Refusal> {
        if self.host.replace(value).is_some() {
            return Err(Refusal::bad("there is more than one Host field"));
        }
        if is_authority(value) { Ok(()) } else { Err(Refusal::bad("the Host field is not valid")) }
    }

    fn take_expect(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::new(Status::EXPECTATION_FAILED, "the expectation is not known"));
        }
        self.expect_continue = true;
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            self.connection = self.connection.max(Asked::by(option));
        }
    }

    /// `1*DIGIT`, once. A list of equal values may be taken as one (RFC 9110, section 8.6); nobody needs that.
    fn take_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        const REFUSAL: Refusal = Refusal::bad("the Content-Length is not a number");
        if value.is_empty() {
            return Err(REFUSAL);
        }
        let mut length = 0_u64;
        for digit in value {
            let digit = digit.checked_sub(b'0').filter(|&digit| digit <= 9).ok_or(REFUSAL)?;
            length = length.checked_mul(10).and_then(|tens| tens.checked_add(digit.into())).ok_or(REFUSAL)?;
        }
        match self.length.replace(length) {
            Some(_) => Err(Refusal::bad("there is more than one Content-Length")),
            None => Ok(()),
        }
    }

    /// Exactly one `chunked` (RFC 9112, sections 6.1 and 7).
    fn take_coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(Refusal::bad("there is more than one Transfer-Encoding field"));
        }
        self.chunked = true;
        if value.eq_ignore_ascii_case(b"chunked") { Ok(()) } else { Err(refusal_for_coding(value)) }
    }

    fn authority(&self, version: Version, target: &Target<'a>) -> Result<&'a [u8], Refusal> {
        match (self.host, target.authority) {
            // Even where the target has one (RFC 9112, section 3.2).
            (None, _) if version == Version::Http11 => Err(Refusal::bad("there is no Host field")),
            (_, Some(authority)) => Ok(authority),
            (Some(host), None) => Ok(host),
            (None, None) => Ok(b""),
        }
    }

    fn framing(&self, version: Version) -> Result<Framing, Refusal> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refusal::bad("there is both a Content-Length and a Transfer-Encoding")),
            // RFC 9112, section 6.1: framed by something that does not know chunks, hence faulty.
            (true, None) if version == Version::Http10 => Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, None | Some(0)) => Ok(Framing::None),
            (false, Some(length)) => Ok(Framing::Length(length)),
        }
    }
}

/// 501 for another coding under the chunks, which a client may rightly send; 400 where chunks are not the last coding
/// (RFC 9112, section 6.3, rule 4) and for every other spelling.
fn refusal_for_coding(value: &[u8]) -> Refusal {
    let mut codings = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let last = codings.next_back().unwrap_or_default();
    let others_are_codings = codings.all(|coding| {
        !coding.is_empty() && coding.iter().all(|&byte| is_token(byte)) && !coding.eq_ignore_ascii_case(b"chunked")
    });
    if last.eq_ignore_ascii_case(b"chunked") && others_are_codings {
        Refusal::new(Status::NOT_IMPLEMENTED, "the transfer coding is not implemented")
    } else {
        Refusal::bad("the Transfer-Encoding is not exactly `chunked`")
    }
}
