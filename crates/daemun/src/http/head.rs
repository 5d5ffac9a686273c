//! The head of a request: views into the bytes that arrived, never a copy of each part.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Version of the protocol that a request was sent with.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// As it stands in a request line and in `SERVER_PROTOCOL` (RFC 3875, section 4.1.16).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            // With a zero that RFC 9113 does not know: what applications and log readers have always been told.
            Self::Http2 => "HTTP/2.0",
        }
    }
}

/// The method of a request (RFC 9110, section 9): the ones whose meaning the server itself knows, and all others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH (RFC 5789)
    Patch,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// CONNECT
    Connect,
    /// Any other token; its text is [`RequestHead::method_name`].
    Other,
}

impl Method {
    /// The method of this name; names are case-sensitive.
    pub fn from_name(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    /// Its name; `None` for what the server does not know.
    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Connect => "CONNECT",
            Self::Other => return None,
        })
    }

    /// Whether doing it twice is the same as doing it once (RFC 9110, section 9.2.2).
    pub fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

/// A part of the head's bytes. Heads are capped far below 4 GiB, so 32 bits do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Span {
    start: u32,
    end: u32,
}

/// The head of a request, already found valid by the codec that read it: the method is a token, the target has no
/// white space or control characters, the path starts with `/` (or is `*`), names are tokens, values hold no CR, LF
/// or NUL and have no white space around them, and the host is the one that RFC 9112, section 3.2 determines.
///
/// A clone shares everything: the connection keeps one for the access log and the error page.
#[derive(Clone)]
pub struct RequestHead(Arc<Parts>);

struct Parts {
    bytes: Bytes,
    version: Version,
    method: Method,
    method_name: Span,
    target: Span,
    path: Span,
    query: Option<Span>,
    authority: Span,
    host: Span,
    fields: Vec<(Span, Span)>,
}

impl RequestHead {
    /// The version it was sent with.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// The method, as far as the server knows it.
    pub fn method(&self) -> Method {
        self.0.method
    }

    /// The method as it was sent.
    pub fn method_name(&self) -> &str {
        self.0.method.name().unwrap_or_else(|| self.text(self.0.method_name))
    }

    /// The request target as it was sent.
    pub fn target(&self) -> &[u8] {
        self.view(self.0.target)
    }

    /// The path of the target, still percent-encoded; `*` for `OPTIONS *`.
    pub fn raw_path(&self) -> &[u8] {
        self.view(self.0.path)
    }

    /// The path as a slice that shares the head's memory.
    pub fn raw_path_bytes(&self) -> Bytes {
        self.0.bytes.slice(self.0.path.start as usize..self.0.path.end as usize)
    }

    /// What stands after the first `?`, still encoded; `None` where there is no `?`.
    pub fn query(&self) -> Option<&[u8]> {
        self.0.query.map(|span| self.view(span))
    }

    /// The host and, where it was sent, the port: from an absolute target, else from `Host`; empty for HTTP/1.0
    /// without one.
    pub fn authority(&self) -> &str {
        self.text(self.0.authority)
    }

    /// The host without its port. An IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        self.text(self.0.host)
    }

    /// All fields in the order in which they were sent. Names keep their case.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.fields.iter().map(|&(name, value)| (self.view(name), self.view(value)))
    }

    /// The first value of this field; `name` in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Every value of this field, one for each line it was sent on; `name` in any case.
    pub fn field_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields().filter(move |(candidate, _)| candidate.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v)
    }

    /// The same head for another target and without the fields of a body: what a local redirect makes of it. `path`
    /// and `query` stand in it as they are given.
    #[must_use]
    pub fn redirected(&self, method: Method, path: &[u8], query: Option<&[u8]>) -> Self {
        const OF_A_BODY: [&[u8]; 7] = [
            b"content-length",
            b"content-type",
            b"content-encoding",
            b"content-language",
            b"transfer-encoding",
            b"trailer",
            b"expect",
        ];
        let name: &[u8] = if method == Method::Head { b"HEAD" } else { b"GET" };
        let parts = &*self.0;
        let query_length = query.map_or(0, |query| query.len() + 1);
        let mut bytes = Vec::with_capacity(parts.bytes.len() + name.len() + path.len() + query_length);
        bytes.extend_from_slice(&parts.bytes);
        let mut append = |part: &[u8]| {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(part);
            Span { start, end: bytes.len() as u32 }
        };
        let (method_name, path) = (append(name), append(path));
        let query = query.map(|query| {
            append(b"?");
            append(query)
        });
        let fields = parts.fields.iter().copied();
        let fields =
            fields.filter(|&(name, _)| !OF_A_BODY.iter().any(|left| self.view(name).eq_ignore_ascii_case(left)));
        let fields = fields.collect();
        Self(Arc::new(Parts {
            bytes: Bytes::from(bytes),
            version: parts.version,
            method,
            method_name,
            target: Span { start: path.start, end: query.map_or(path.end, |query| query.end) },
            path,
            query,
            authority: parts.authority,
            host: parts.host,
            fields,
        }))
    }

    /// The same request with changes. The target stays as it was sent.
    #[must_use]
    pub fn edited(&self, edit: &HeadEdit<'_>) -> Self {
        let mut bytes = BytesMut::with_capacity(self.0.bytes.len() + 256);
        bytes.extend_from_slice(&self.0.bytes);
        let mut append = |part: &[u8]| {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(part);
            Span { start, end: bytes.len() as u32 }
        };
        let (path, query) = match edit.path {
            Some((path, query)) => (append(path), query.map(&mut append)),
            None => (self.0.path, self.0.query),
        };
        let goes = |name: &[u8]| {
            let is_named = |other: &[u8]| name.eq_ignore_ascii_case(other);
            edit.remove.iter().any(|other| is_named(other.as_bytes()))
                || edit.set.iter().any(|(other, _)| is_named(other))
        };
        let kept = self.0.fields.iter().filter(|(name, _)| !goes(self.view(*name)));
        let mut fields: Vec<(Span, Span)> = kept.copied().collect();
        fields.extend(edit.set.iter().map(|(name, value)| (append(name), append(value))));
        let Parts { version, method, method_name, target, authority, host, .. } = *self.0;
        let bytes = bytes.freeze();
        Self(Arc::new(Parts { bytes, version, method, method_name, target, path, query, authority, host, fields }))
    }

    fn view(&self, span: Span) -> &[u8] {
        &self.0.bytes[span.start as usize..span.end as usize]
    }

    /// Only for parts that the builder checked to be ASCII.
    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.view(span)).unwrap_or_default()
    }
}

/// Changes of a [`RequestHead`]. What is given is valid: names are tokens, values and the path hold no white space or
/// control characters that a codec would refuse.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEdit<'a> {
    /// Another path, percent-encoded, and query.
    pub path: Option<(&'a [u8], Option<&'a [u8]>)>,
    /// Fields that go.
    pub remove: &'a [&'a str],
    /// Fields that stand in the place of all of their name.
    pub set: &'a [(&'a [u8], &'a [u8])],
}

impl fmt::Debug for RequestHead {
    /// Method and target only: fields carry credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method_name(), self.target().escape_ascii())
    }
}

/// Makes a [`RequestHead`] out of the bytes of a head and slices of them.
///
/// Each slice must lie within `bytes`; that is how a codec, which has parsed in place, says where the parts are.
pub struct HeadBuilder {
    base: usize,
    head: Parts,
}

impl HeadBuilder {
    /// Begins with the whole head, its version, method and target.
    pub fn new(bytes: Bytes, version: Version, method: &[u8], target: &[u8]) -> Self {
        let base = bytes.as_ptr() as usize;
        let mut builder = Self {
            base,
            head: Parts {
                bytes,
                version,
                method: Method::from_name(method),
                method_name: Span::default(),
                target: Span::default(),
                path: Span::default(),
                query: None,
                authority: Span::default(),
                host: Span::default(),
                fields: Vec::with_capacity(16),
            },
        };
        builder.head.method_name = builder.span(method);
        builder.head.target = builder.span(target);
        builder
    }

    /// The path and query of the target.
    pub fn path(&mut self, path: &[u8], query: Option<&[u8]>) {
        self.head.path = self.span(path);
        self.head.query = query.map(|query| self.span(query));
    }

    /// The authority that counts for this request.
    pub fn authority(&mut self, authority: &[u8]) {
        self.head.authority = self.span(authority);
        let host = match memchr::memrchr(b':', authority) {
            Some(colon) if !authority[colon..].contains(&b']') => &authority[..colon],
            _ => authority,
        };
        self.head.host = self.span(host);
    }

    /// One more field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        let field = (self.span(name), self.span(value));
        self.head.fields.push(field);
    }

    /// The head.
    pub fn finish(self) -> RequestHead {
        RequestHead(Arc::new(self.head))
    }

    /// Where `part` lies within the head's bytes; an empty part may lie anywhere.
    fn span(&self, part: &[u8]) -> Span {
        if part.is_empty() {
            return Span::default();
        }
        let start = (part.as_ptr() as usize).wrapping_sub(self.base);
        let end = start.wrapping_add(part.len());
        assert!(start <= end && end <= self.head.bytes.len(), "a part of a head lies within the head's bytes");
        Span { start: start as u32, end: end as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirected_head_asks_for_the_other_target_and_carries_no_body() {
        let bytes = Bytes::from_static(b"POST /a?b HTTP/1.1|x.example|Cookie|k=v|Content-Length|3|Expect|100-continue");
        let part = |text: &[u8]| {
            let start = memchr::memmem::find(&bytes, text).unwrap();
            &bytes[start..start + text.len()]
        };
        let mut builder = HeadBuilder::new(bytes.clone(), Version::Http11, part(b"POST"), part(b"/a?b"));
        builder.path(part(b"/a"), Some(part(b"b")));
        builder.authority(part(b"x.example"));
        builder.field(part(b"Cookie"), part(b"k=v"));
        builder.field(part(b"Content-Length"), part(b"3"));
        builder.field(part(b"Expect"), part(b"100-continue"));
        let head = builder.finish().redirected(Method::Get, b"/c%20d", Some(b"e=f"));
        assert_eq!((head.method(), head.method_name(), head.host()), (Method::Get, "GET", "x.example"));
        assert_eq!((head.raw_path(), head.query()), (&b"/c%20d"[..], Some(&b"e=f"[..])));
        assert_eq!(head.target(), b"/c%20d?e=f");
        assert_eq!(head.fields().collect::<Vec<_>>(), [(&b"Cookie"[..], &b"k=v"[..])]);
        let plain = head.redirected(Method::Head, b"/", None);
        assert_eq!((plain.target(), plain.query(), plain.method_name()), (&b"/"[..], None, "HEAD"));
    }
}
