//! Names and values in one piece of memory, each ended by a NUL: how the environment of a request is made, kept and
//! handed on inside daemun, and how SCGI sends it.

/// A name and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// The pairs of `text`. A last name without a value is none.
pub fn pairs(text: &[u8]) -> Pairs<'_> {
    Pairs(text)
}

/// An iterator over names and values.
#[derive(Clone, Debug)]
pub struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = memchr::memchr(0, self.0)?;
        let value = memchr::memchr(0, &self.0[name + 1..])?;
        let (pair, rest) = self.0.split_at(name + value + 2);
        self.0 = rest;
        Some((&pair[..name], &pair[name + 1..pair.len() - 1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_a_name_and_a_value_and_half_of_one_is_none() {
        let all = |text: &'static [u8]| pairs(text).collect::<Vec<_>>();
        assert_eq!(all(b"A\0b\0C\0\0"), [(&b"A"[..], &b"b"[..]), (b"C", b"")]);
        for half in [&b""[..], b"A", b"A\0", b"A\0b"] {
            assert!(all(half).is_empty(), "{}", half.escape_ascii());
        }
    }
}
