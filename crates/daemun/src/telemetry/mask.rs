//! Secrets in queries that logs must not hold.

use std::borrow::Cow;

/// Names of parameters whose values are not written down.
#[derive(Debug, Default)]
pub(super) struct Mask(Vec<Box<[u8]>>);

impl Mask {
    pub(super) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.as_bytes().into()).collect())
    }

    /// A target or URL with `***` in the place of the values.
    pub(super) fn apply<'a>(&self, target: &'a [u8]) -> Cow<'a, [u8]> {
        if self.0.is_empty() {
            return Cow::Borrowed(target);
        }
        match target.iter().position(|&byte| byte == b'?') {
            None => Cow::Borrowed(target),
            Some(mark) => {
                let mut masked = target[..=mark].to_vec();
                masked.extend_from_slice(&self.query(&target[mark + 1..]));
                Cow::Owned(masked)
            }
        }
    }

    /// A query with `***` in the place of the values. `&` and `;` both separate, as some applications read it.
    pub(super) fn query<'a>(&self, query: &'a [u8]) -> Cow<'a, [u8]> {
        if self.0.is_empty() {
            return Cow::Borrowed(query);
        }
        let mut masked = Vec::with_capacity(query.len());
        for pair in query.split_inclusive(|byte| matches!(byte, b'&' | b';')) {
            let name = pair.split(|byte| matches!(byte, b'=' | b'&' | b';')).next().unwrap_or_default();
            let is_secret = self.0.iter().any(|secret| decoded(name).eq_ignore_ascii_case(secret));
            if !is_secret || name.len() == pair.len() {
                masked.extend_from_slice(pair);
                continue;
            }
            masked.extend_from_slice(name);
            masked.extend_from_slice(b"=***");
            masked.extend(pair.last().filter(|byte| matches!(byte, b'&' | b';')));
        }
        Cow::Owned(masked)
    }
}

/// `%74oken` is `token`.
fn decoded(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.contains(&b'%') {
        return Cow::Borrowed(name);
    }
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                decoded.push(value);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_parameters_do_not_reach_the_log() {
        let mask = Mask::new(&["token".to_owned(), "key".to_owned()]);
        for (target, want) in [
            ("/a?token=x&b=1", "/a?token=***&b=1"),
            ("/a?b=1;TOKEN=x", "/a?b=1;TOKEN=***"),
            ("/a?%74oken=x", "/a?%74oken=***"),
            ("/a?token", "/a?token"),
            ("/a?token=x=y?z", "/a?token=***"),
            ("/a?tokens=x", "/a?tokens=x"),
            ("/token=x", "/token=x"),
            ("https://x/?key=1&key=2", "https://x/?key=***&key=***"),
        ] {
            assert_eq!(mask.apply(target.as_bytes()), want.as_bytes(), "{target}");
        }
    }
}
