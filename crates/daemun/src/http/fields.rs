//! The fields of a response.

use bytes::Bytes;

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
pub struct Fields(Vec<Field>);

impl Fields {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// No fields, with room for so many.
    pub fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
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
            self.0.push(Field { name, value });
        }
        valid
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
        self.0.retain(|field| !field.name.eq_ignore_ascii_case(name.as_bytes()));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.0.iter()
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
}
