//! What a page's head names that a browser will ask for: as much of HTML as that takes.

use std::borrow::Cow;
use std::io::Read;

use crate::http::Scheme;

/// Assets of one page that are named: more than these compete with one another for the same connection.
const MOST_LINKS: usize = 16;

/// Bytes of the `Link` field, well below what clients take for a head.
const MOST_BYTES: usize = 2048;

/// Elements whose content is no markup, or markup that is not for browsers that run scripts.
const OPAQUE: [&[u8]; 6] = [b"script", b"style", b"title", b"noscript", b"template", b"textarea"];

/// What may be preloaded (`as`).
const KINDS: [&str; 6] = ["style", "script", "font", "image", "fetch", "track"];

/// Where a page comes from: what it names elsewhere is left out.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    /// In lower case.
    pub(super) authority: String,
}

/// How a page is packed. What an application has compressed by itself is opened where it is gzip, as Django's
/// `GZipMiddleware` sends it; the other codings are not looked into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Packing {
    Plain,
    Gzip,
}

// === impl Packing ===

impl Packing {
    /// `None` for those that are not looked into.
    pub(super) fn of(coding: Option<&[u8]>) -> Option<Self> {
        match coding {
            None => Some(Self::Plain),
            Some(coding) if coding.eq_ignore_ascii_case(b"gzip") => Some(Self::Gzip),
            Some(_) => None,
        }
    }

    /// Whether the head has ended already; of what is packed nobody knows.
    pub(super) fn has_head(self, bytes: &[u8]) -> bool {
        self == Self::Plain && head_ends(bytes)
    }

    /// The page as text, as far as its head and at most `most` bytes.
    pub(super) fn open(self, bytes: &[u8], most: usize) -> Cow<'_, [u8]> {
        if self == Self::Plain {
            return Cow::Borrowed(bytes);
        }
        let (mut page, mut piece) = (Vec::new(), [0; 4096]);
        let mut decoder = flate2::read::GzDecoder::new(bytes);
        while page.len() < most && !head_ends(&page) {
            match decoder.read(&mut piece) {
                // What is cut off ends in an error: what came out before it counts.
                Ok(0) | Err(_) => break,
                Ok(read) => page.extend_from_slice(&piece[..read]),
            }
        }
        Cow::Owned(page)
    }
}

fn head_ends(page: &[u8]) -> bool {
    memchr::memchr_iter(b'<', page).any(|at| is_body(&page[at + 1..]))
}

/// Whether a tag ends the head.
fn is_body(tag: &[u8]) -> bool {
    starts(tag, b"/head") || starts(tag, b"body")
}

fn starts(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
        && text.get(word.len()).is_none_or(|&next| !next.is_ascii_alphanumeric() && next != b'-')
}

// === The head ===

/// The value of a `Link` field (RFC 8288) for what the head of `page` names; `None` where it names nothing.
pub(super) fn links(page: &[u8], origin: &Origin) -> Option<String> {
    let mut found: Vec<String> = Vec::new();
    let (mut at, mut bytes) = (0, 0);
    while let Some(length) = memchr::memchr(b'<', &page[at..]) {
        at += length + 1;
        let rest = &page[at..];
        if rest.starts_with(b"!--") {
            let Some(end) = memchr::memmem::find(&rest[3..], b"-->") else { break };
            at += end;
            continue;
        }
        if is_body(rest) {
            break;
        }
        let Some(tag) = Tag::parse(rest) else { continue };
        at += tag.length;
        let link = match tag.name.as_slice() {
            // What it changes would have to be said here too.
            b"base" => return None,
            b"link" => tag.linked(origin),
            b"script" => tag.scripted(origin),
            _ => None,
        };
        if let Some(link) = link.filter(|link| !found.contains(link)) {
            bytes += link.len() + 2;
            if bytes > MOST_BYTES || found.len() == MOST_LINKS {
                break;
            }
            found.push(link);
        }
        if OPAQUE.contains(&tag.name.as_slice()) {
            at += content_end(&page[at..], &tag.name);
        }
    }
    (!found.is_empty()).then(|| found.join(", "))
}

/// Where the content of an opaque element ends.
fn content_end(text: &[u8], name: &[u8]) -> usize {
    let ends = |at: &usize| text[at + 1..].first() == Some(&b'/') && starts(&text[at + 2..], name);
    memchr::memchr_iter(b'<', text).find(ends).unwrap_or(text.len())
}

/// A tag that begins an element.
struct Tag {
    name: Vec<u8>,
    attributes: Vec<(Vec<u8>, String)>,
    /// Bytes up to and with the `>`.
    length: usize,
}

// === impl Tag ===

impl Tag {
    /// Reads what follows a `<`; `None` where that begins no element, or is not whole.
    fn parse(text: &[u8]) -> Option<Self> {
        if !text.first()?.is_ascii_alphabetic() {
            return None;
        }
        let mut at = text.iter().position(|&byte| byte.is_ascii_whitespace() || byte == b'/' || byte == b'>')?;
        let mut tag = Self { name: text[..at].to_ascii_lowercase(), attributes: Vec::new(), length: 0 };
        loop {
            at += text[at..].iter().position(|&byte| !byte.is_ascii_whitespace() && byte != b'/')?;
            if text[at] == b'>' {
                tag.length = at + 1;
                return Some(tag);
            }
            let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'=' | b'>' | b'/');
            // A name that begins with `=` is one (HTML, section 13.2.5.32).
            let length = 1 + text[at + 1..].iter().position(is_end)?;
            let name = text[at..at + length].to_ascii_lowercase();
            at += length;
            let after = at + text[at..].iter().position(|byte| !byte.is_ascii_whitespace())?;
            let mut value = &b""[..];
            if text[after] == b'=' {
                at = after + 1;
                at += text[at..].iter().position(|byte| !byte.is_ascii_whitespace())?;
                if let quote @ (b'"' | b'\'') = text[at] {
                    let length = memchr::memchr(quote, &text[at + 1..])?;
                    value = &text[at + 1..at + 1 + length];
                    at += length + 2;
                } else {
                    let length = text[at..].iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'>')?;
                    value = &text[at..at + length];
                    at += length;
                }
            }
            if tag.attribute(&name).is_none() {
                tag.attributes.push((name, String::from_utf8_lossy(value).into_owned()));
            }
        }
    }

    fn attribute(&self, name: &[u8]) -> Option<&str> {
        self.attributes.iter().find(|(other, _)| other == name).map(|(_, value)| value.trim_ascii())
    }

    fn is(&self, name: &[u8], value: &str) -> bool {
        self.attribute(name).is_some_and(|own| own.eq_ignore_ascii_case(value))
    }

    /// `<link>`.
    fn linked(&self, origin: &Origin) -> Option<String> {
        let rel = self.attribute(b"rel")?.to_ascii_lowercase();
        let rel: Vec<&str> = rel.split_ascii_whitespace().collect();
        let is_for_screens = self.attribute(b"media").is_none_or(|media| ["", "all", "screen"].contains(&media));
        if !is_for_screens || rel.contains(&"alternate") || self.attribute(b"disabled").is_some() {
            return None;
        }
        let url = address(self.attribute(b"href")?, origin)?;
        if rel.contains(&"stylesheet") {
            return self.written(&url, "preload", Some("style"));
        }
        if rel.contains(&"modulepreload") {
            return self.written(&url, "modulepreload", None);
        }
        // Which of several images it is only the page can say.
        if !rel.contains(&"preload") || self.attribute(b"imagesrcset").is_some() {
            return None;
        }
        let kind = KINDS.into_iter().find(|kind| self.is(b"as", kind))?;
        self.written(&url, "preload", Some(kind))
    }

    /// `<script src>`.
    fn scripted(&self, origin: &Origin) -> Option<String> {
        const SCRIPTS: [&str; 3] = ["", "text/javascript", "application/javascript"];
        if self.attribute(b"nomodule").is_some() {
            return None;
        }
        let url = address(self.attribute(b"src")?, origin)?;
        let kind = self.attribute(b"type").unwrap_or_default();
        if kind.eq_ignore_ascii_case("module") {
            self.written(&url, "modulepreload", None)
        } else if SCRIPTS.iter().any(|script| kind.eq_ignore_ascii_case(script)) {
            self.written(&url, "preload", Some("script"))
        } else {
            // A template, or data.
            None
        }
    }

    /// With all that has to be the same, or the browser asks a second time.
    fn written(&self, url: &str, rel: &str, kind: Option<&str>) -> Option<String> {
        let mut link = format!("<{url}>; rel={rel}");
        if let Some(kind) = kind {
            link.push_str("; as=");
            link.push_str(kind);
        }
        match self.attribute(b"crossorigin") {
            None => {}
            Some(mode) if mode.eq_ignore_ascii_case("use-credentials") => {
                link.push_str("; crossorigin=use-credentials");
            }
            Some(_) => link.push_str("; crossorigin"),
        }
        for name in ["type", "integrity", "referrerpolicy"] {
            // The type of a script is in `rel` already.
            let Some(value) = self.attribute(name.as_bytes()).filter(|_| name != "type" || self.name == b"link") else {
                continue;
            };
            if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-+/=. ".contains(&byte)) {
                return None;
            }
            if !value.is_empty() {
                for part in ["; ", name, "=\"", value, "\""] {
                    link.push_str(part);
                }
            }
        }
        Some(link)
    }
}

/// A reference as it may stand in `Link`; `None` where it leads to another origin, or not to a file of its own.
fn address(written: &str, origin: &Origin) -> Option<String> {
    let url = written.replace("&amp;", "&");
    if url.contains("&#") || url.is_empty() || url.starts_with('#') {
        return None;
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"\\^`{|}".contains(&byte)) {
        return None;
    }
    let own = |rest: &str| {
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        (authority.eq_ignore_ascii_case(&origin.authority) && path.starts_with('/')).then(|| path.to_owned())
    };
    if let Some(rest) = url.strip_prefix("//") {
        return own(rest);
    }
    let first = url.split(['/', '?', '#']).next().unwrap_or_default();
    if !first.contains(':') {
        return Some(url);
    }
    let (scheme, rest) = url.split_once("://")?;
    if scheme.eq_ignore_ascii_case(origin.scheme.as_str()) { own(rest) } else { None }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn named(page: &str) -> Vec<String> {
        let origin = Origin { scheme: Scheme::Https, authority: "shop.example".to_owned() };
        links(page.as_bytes(), &origin).map_or(Vec::new(), |link| link.split(", ").map(str::to_owned).collect())
    }

    #[test]
    fn a_bomb_is_opened_no_further_than_is_looked_at() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&vec![b' '; 20 << 20]).unwrap();
        let bomb = packed.finish().unwrap();
        assert!(bomb.len() < 64 * 1024);
        assert!(Packing::Gzip.open(&bomb, 64 * 1024).len() < 64 * 1024 + 4096);
    }

    #[test]
    fn what_a_browser_will_ask_for_is_named_as_it_will_ask() {
        const TABLE: [(&str, &str); 14] = [
            ("<link rel=stylesheet href=/a.css>", "</a.css>; rel=preload; as=style"),
            ("<LINK HREF='a.css?v=1&amp;w=2' REL='StyleSheet' />", "<a.css?v=1&w=2>; rel=preload; as=style"),
            ("<link rel=\"stylesheet\" media=\"screen\" href=\"/a.css\">", "</a.css>; rel=preload; as=style"),
            ("<script src=\"/a.js\" defer></script>", "</a.js>; rel=preload; as=script"),
            ("<script type=module src=/m.js></script>", "</m.js>; rel=modulepreload"),
            ("<link rel=modulepreload href=/m.js>", "</m.js>; rel=modulepreload"),
            (
                "<link rel=preload as=font crossorigin href=/f.woff2 type=font/woff2>",
                "</f.woff2>; rel=preload; as=font; crossorigin; type=\"font/woff2\"",
            ),
            (
                "<script src=/a.js crossorigin=anonymous integrity='sha384-aB+/='></script>",
                "</a.js>; rel=preload; as=script; crossorigin; integrity=\"sha384-aB+/=\"",
            ),
            (
                "<script src=/a.js crossorigin=use-credentials></script>",
                "</a.js>; rel=preload; as=script; crossorigin=use-credentials",
            ),
            ("<link rel=stylesheet href=https://Shop.example/a.css>", "</a.css>; rel=preload; as=style"),
            ("<link rel=stylesheet href=//shop.example/a.css>", "</a.css>; rel=preload; as=style"),
            ("<link rel=stylesheet\nhref = /a.css\n>", "</a.css>; rel=preload; as=style"),
            ("<link =x rel=stylesheet href=/a.css rel=icon>", "</a.css>; rel=preload; as=style"),
            (
                "<script>if (a < b) '<link rel=stylesheet href=/no.css>'</script><script src=/a.js>",
                "</a.js>; rel=preload; as=script",
            ),
        ];
        for (page, link) in TABLE {
            assert_eq!(named(page), [link], "{page}");
        }
    }

    #[test]
    fn what_it_will_not_ask_for_is_not() {
        const TABLE: [&str; 24] = [
            "",
            "<",
            "<link",
            "<link rel=stylesheet href=/a.css",
            "<link rel=stylesheet href='/a.css>",
            "<link rel=icon href=/a.ico>",
            "<link rel='alternate stylesheet' href=/a.css>",
            "<link rel=stylesheet media=print href=/a.css>",
            "<link rel=stylesheet disabled href=/a.css>",
            "<link rel=stylesheet href=https://cdn.example/a.css>",
            "<link rel=stylesheet href=http://shop.example/a.css>",
            "<link rel=stylesheet href=//cdn.example/a.css>",
            "<link rel=stylesheet href=data:text/css,a>",
            "<link rel=stylesheet href=\"/a.css>; rel=x\">",
            "<link rel=stylesheet href=\"/a&#46;css\">",
            "<link rel=stylesheet href=\"/\\cdn.example/a.css\">",
            "<link rel=preload href=/a.css>",
            "<link rel=preload as=document href=/a>",
            "<link rel=preload as=image imagesrcset='/a 1x' href=/a>",
            "<script nomodule src=/a.js></script>",
            "<script type=application/json src=/a.json></script>",
            "<!-- <link rel=stylesheet href=/a.css> -->",
            "<noscript><link rel=stylesheet href=/a.css></noscript>",
            "<base href=/b/><link rel=stylesheet href=/a.css>",
        ];
        for page in TABLE {
            assert_eq!(named(page), [""; 0], "{page}");
        }
    }

    #[test]
    fn only_the_head_counts_and_each_once() {
        let page = "<head><link rel=stylesheet href=/a.css><link rel=stylesheet href=/a.css></head><script src=/b.js>";
        assert_eq!(named(page), ["</a.css>; rel=preload; as=style"]);
        assert_eq!(named("<body><script src=/b.js></script>"), [""; 0]);
        assert_eq!(named("<header-x><script src=/b.js></script>").len(), 1);
    }

    #[test]
    fn a_page_cannot_make_the_field_long() {
        let many = (0..100).map(|number| format!("<script src=/{number}.js></script>")).collect::<Vec<_>>().concat();
        assert_eq!(named(&many).len(), MOST_LINKS);
        let long = format!("<script src=/a.js></script><script src=/{}></script>", "b".repeat(MOST_BYTES));
        assert_eq!(named(&long).len(), 1);
    }

    #[test]
    fn what_is_packed_is_opened_as_far_as_its_head() {
        let page = format!("<head><script src=/a.js></script></head>{}", "x".repeat(1 << 20));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(page.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        let opened = Packing::Gzip.open(&packed[..packed.len() / 2], 64 * 1024);
        assert!(opened.len() <= 4096 && opened.starts_with(b"<head><script"));
        assert_eq!(Packing::of(Some(b"GZip")), Some(Packing::Gzip));
        assert_eq!(Packing::of(Some(b"br")), None);
        assert!(Packing::Gzip.open(b"no gzip", 64).is_empty());
    }

    /// Whatever the bytes, it comes to an end without a panic. The seed is printed so that a failure can be had again.
    #[test]
    fn any_bytes_are_read_without_a_fault() {
        const PARTS: [&[u8]; 16] = [
            b"<",
            b">",
            b"link",
            b"script",
            b" rel=",
            b"stylesheet",
            b" href=",
            b"'",
            b"\"",
            b"/a.css",
            b"<!--",
            b"-->",
            b"</script",
            b"=",
            b"\xff\x00",
            b" src",
        ];
        let seed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |time| time.as_nanos() as u64 | 1);
        let mut state = seed;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let origin = Origin { scheme: Scheme::Http, authority: "a".to_owned() };
        println!("seed {seed}");
        for _ in 0..20_000 {
            let page: Vec<u8> = (0..next() % 24).flat_map(|_| PARTS[(next() % 16) as usize].to_vec()).collect();
            if let Some(link) = links(&page, &origin) {
                assert!(link.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{page:?}");
            }
        }
    }
}
