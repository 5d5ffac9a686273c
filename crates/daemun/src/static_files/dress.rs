//! What a route puts on its files beside what HTTP wants: types of its own, fields, and what uploads may not do.

use bytes::Bytes;

use super::content_type;
use super::settings::StaticSettings;
use crate::http::Fields;

/// Uploads that a browser runs when they are opened: they get an origin of their own and run no script, so that an
/// uploaded page cannot act as the visitor of the site that it was uploaded to. As an image in a page they are not
/// affected; `X-Content-Type-Options: nosniff` keeps all others what their type says.
const SANDBOX: &[u8] = b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox";

/// The types that this holds for.
const ACTIVE: [&[u8]; 6] = [
    b"text/html",
    b"application/xhtml+xml",
    b"image/svg+xml",
    b"application/xml",
    b"text/xml",
    b"application/xslt+xml",
];

/// What a route says about all its files.
#[derive(Debug, Default)]
pub(super) struct Dress {
    types: Vec<(Vec<u8>, Bytes)>,
    headers: Fields,
    uploads: bool,
}

impl Dress {
    /// What these settings say.
    pub(super) fn new(settings: &StaticSettings) -> Self {
        let types = settings.types.iter();
        let types = types.map(|(name, kind)| (name.to_ascii_lowercase().into_bytes(), Bytes::from(kind.clone())));
        let mut headers = Fields::new();
        for (name, value) in &settings.headers {
            headers.push(Bytes::from(name.clone()), Bytes::from(value.clone()));
        }
        Self { types: types.collect(), headers, uploads: settings.uploads }
    }

    /// The type of a file of this name: what the route says of its ending or of its whole name, else what is known.
    pub(super) fn content_type(&self, name: &[u8]) -> Bytes {
        if !self.types.is_empty() {
            let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_ascii_lowercase();
            let fits = |own: &[u8]| if own.starts_with(b".") { last.ends_with(own) } else { last == own };
            if let Some((_, kind)) = self.types.iter().find(|(own, _)| fits(own)) {
                return kind.clone();
            }
        }
        content_type::of(name)
    }

    /// Adds what the route says to the fields of a 200 and of a 304; what it says itself takes the place of ours.
    pub(super) fn put_on(&self, whole: &mut Fields, unchanged: &mut Fields) {
        if self.uploads {
            let kind = whole.get("Content-Type").unwrap_or_default();
            let kind = kind.split(|&byte| byte == b';').next().unwrap_or_default();
            if ACTIVE.iter().any(|active| kind.eq_ignore_ascii_case(active)) {
                whole.push(Bytes::from_static(b"Content-Security-Policy"), Bytes::from_static(SANDBOX));
            }
        }
        for field in self.headers.iter() {
            let name = String::from_utf8_lossy(field.name());
            // What says something of the content has no place in a 304 (RFC 9110, section 15.4.5).
            let of_content = name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("content-"));
            for fields in [Some(&mut *whole), (!of_content).then_some(&mut *unchanged)].into_iter().flatten() {
                fields.remove(&name);
            }
        }
        for field in self.headers.iter() {
            let (name, value) = (Bytes::copy_from_slice(field.name()), Bytes::copy_from_slice(field.value()));
            if !name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-")) {
                unchanged.push(name.clone(), value.clone());
            }
            whole.push(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_says_types_by_ending_or_by_name() {
        let types = [(".X", "x/x"), (".tar.gz", "x/tar"), ("LICENSE", "text/plain")];
        let types =
            types.map(|(name, kind)| (name.to_ascii_lowercase().into_bytes(), Bytes::from_static(kind.as_bytes())));
        let dress = Dress { types: types.to_vec(), ..Dress::default() };
        for (name, want) in [
            ("a/b.x", "x/x"),
            ("b.X", "x/x"),
            ("b.tar.gz", "x/tar"),
            ("b.gz", "application/gzip"),
            ("a/license", "text/plain"),
            ("my-license", "application/octet-stream"),
        ] {
            assert_eq!(dress.content_type(name.as_bytes()), want, "{name}");
        }
    }
}
