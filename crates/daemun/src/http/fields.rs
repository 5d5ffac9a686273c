//! The fields of a response.

use std::sync::Arc;

use bytes::Bytes;

use super::h1::Lines;

/// One field of a response. The name is a token, the value holds no control characters but tab.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Field {
    name: Bytes,
    value: Bytes,
}

impl Field {
    /// The name as it will be sent.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The value as it will be sent.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The value, to be shared.
    pub fn shared_value(&self) -> &Bytes {
        &self.value
    }
}

/// The fields of a response, in the order in which they will be sent.
///
/// Framing and connection fields (`Content-Length`, `Transfer-Encoding`, `Connection`, `Date`) are the codec's; a
/// handler that knows a length says it with its body.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// What many responses begin with.
    shared: Option<Arc<Shared>>,
    /// What stands behind it.
    own: Vec<Field>,
}

/// Fields that many responses have, and how they are written.
#[derive(Debug)]
struct Shared {
    fields: Vec<Field>,
    lines: Lines,
}

impl Fields {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// No fields, with room for so many.
    pub fn with_capacity(count: usize) -> Self {
        Self { shared: None, own: Vec::with_capacity(count) }
    }

    /// The same for many responses: a clone is one count instead of one for each field, and HTTP/1.1 writes them all
    /// at once. Fields that are added to a clone stand behind them; one that takes any of them away is a copy.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.unshare();
        let lines = Lines::of(&self.own);
        Self { shared: Some(Arc::new(Shared { fields: self.own, lines })), own: Vec::new() }
    }

    /// As many of the first fields as are shared, written down, and those behind them.
    pub(super) fn parts(&self) -> (Option<&Lines>, &[Field]) {
        (self.shared.as_ref().map(|shared| &shared.lines), &self.own)
    }

    fn unshare(&mut self) {
        if let Some(shared) = self.shared.take() {
            self.own.splice(..0, shared.fields.iter().cloned());
        }
    }

    /// Adds a field whose name and value are ours. Returns itself for chaining.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Bytes>) -> Self {
        self.push(Bytes::from_static(name.as_bytes()), value.into());
        self
    }

    /// Adds a field. A value that could split the response (RFC 9112, section 11.1) is left out: whoever takes fields
    /// from outside checks them with [`Fields::try_push`].
    pub fn push(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let valid = self.try_push(name.into(), value.into());
        debug_assert!(valid, "our own fields are valid");
    }

    /// Adds a field from outside; false, and nothing added, where name or value are not allowed by RFC 9110,
    /// sections 5.1 and 5.5.
    #[must_use]
    pub fn try_push(&mut self, name: Bytes, value: Bytes) -> bool {
        // All bytes of a value, also behind one that is wrong: so many are looked at together.
        let is_sound = |value: &[u8]| value.iter().fold(true, |sound, &byte| sound & is_value(byte));
        let valid = !name.is_empty() && name.iter().all(|&byte| is_token(byte)) && is_sound(&value);
        if valid {
            self.push_read(name, value);
        }
        valid
    }

    /// Adds a field that a codec has found allowed as it read it.
    pub(super) fn push_read(&mut self, name: Bytes, value: Bytes) {
        self.own.push(Field { name, value });
    }

    /// The first value of this field; `name` in any case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(Field::value)
    }

    /// Puts one field in the place of every field of this name. The value is ours.
    pub fn set(&mut self, name: &'static str, value: impl Into<Bytes>) {
        self.remove(name);
        self.push(Bytes::from_static(name.as_bytes()), value.into());
    }

    /// Whether this word stands in a field that is a list of words, such as `Vary`; both in any case.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        let fields = self.iter().filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
        fields
            .flat_map(|field| field.value.split(|&byte| byte == b','))
            .any(|one| one.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Adds a word to `Vary`, where it does not stand yet.
    pub fn vary(&mut self, word: &'static str) {
        if !self.lists("vary", word) && !self.lists("vary", "*") {
            self.push(&b"Vary"[..], word);
        }
    }

    /// Takes every field of this name away; `name` in any case.
    pub fn remove(&mut self, name: &str) {
        let is_named = |field: &Field| field.name.eq_ignore_ascii_case(name.as_bytes());
        if self.shared.as_ref().is_some_and(|shared| shared.fields.iter().any(is_named)) {
            self.unshare();
        }
        self.own.retain(|field| !is_named(field));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        let shared = self.shared.as_ref().map_or(&[][..], |shared| &shared.fields);
        shared.iter().chain(&self.own)
    }
}

/// `tchar` of RFC 9110, section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            let c = byte as u8;
            table[byte] = c.is_ascii_alphanumeric()
                || matches!(c, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_')
                || matches!(c, b'`' | b'|' | b'~');
            byte += 1;
        }
        table
    };
    TOKEN[byte as usize]
}

/// Bytes of a field value: visible ASCII, space, tab and `obs-text` (RFC 9110, section 5.5).
pub(crate) fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_line_break_never_becomes_a_field() {
        let mut fields = Fields::new();
        for value in [&b"a\r\nX: y"[..], b"a\nb", b"a\0b", b"a\x7f"] {
            assert!(!fields.try_push(Bytes::from_static(b"X-A"), Bytes::copy_from_slice(value)));
        }
        for name in [&b""[..], b"X A", b"X:", b"X\r\n", b"\xe9"] {
            assert!(!fields.try_push(Bytes::copy_from_slice(name), Bytes::from_static(b"v")));
        }
        assert!(fields.try_push(Bytes::from_static(b"X-A"), Bytes::from_static(b"caf\xe9\tau lait")));
        assert_eq!(fields.iter().count(), 1);
    }

    #[test]
    fn what_is_done_to_shared_fields_is_what_is_done_to_others() {
        let plain = Fields::new().with("ETag", "\"a\"").with("Vary", "Cookie").with("Server", "x").with("ETag", "b");
        let change: [fn(&mut Fields); 5] = [
            |fields| fields.push("X-A", "1"),
            |fields| fields.remove("etag"),
            |fields| fields.set("Vary", "*"),
            |fields| fields.vary("Cookie"),
            |fields| *fields = fields.clone().with("X-B", "2").shared(),
        ];
        let said = |fields: &Fields| -> Vec<_> { fields.iter().cloned().collect() };
        let (mut own, mut shared) = (plain.clone(), plain.clone().shared());
        let kept = shared.clone();
        for change in change {
            change(&mut own);
            change(&mut shared);
            assert_eq!(said(&shared), said(&own));
            assert_eq!(shared.get("vary"), own.get("vary"));
            assert!(!shared.is_empty());
        }
        assert_eq!(said(&kept), said(&plain), "a clone is its own");
        assert!(Fields::new().shared().is_empty());
    }
}
