//! What front and transformer say to each other: a length, a kind, and bytes; of a job and its result a JSON head first.

use serde::{Deserialize, Serialize};

/// Bytes before what is said: `u32` length of the rest, `u8` kind.
pub(super) const HEADER: usize = 5;

/// More than this is said by nobody who is sound.
pub(super) const MOST: usize = 256 << 20;

/// What is said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The front: transform this.
    Job = 1,
    /// The front: the file that was asked for.
    File = 2,
    /// The front: there is no such file.
    NoFile = 3,
    /// The transformer: the path of a file, which begins with `/`.
    Want = 4,
    /// The transformer: the result.
    Made = 5,
    /// The transformer: why there is none.
    Failed = 6,
}

/// What a transformation is made from, beside its document.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Job {
    /// The stylesheet in the state in which its files are now: another number is compiled anew.
    pub sheet: u64,
    /// The path of the stylesheet; begins with `/`.
    pub path: String,
    /// The path of the document, for relative names and for messages.
    pub document: String,
    /// Names and values; each value is a text.
    pub parameters: Vec<(String, String)>,
    /// Milliseconds until the process is ended.
    pub milliseconds: u64,
    /// Bytes of the result.
    pub most: u64,
}

/// What a transformation made, beside its bytes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Made {
    /// `Content-Type`.
    pub content_type: String,
    /// What `xsl:message` and warnings said.
    pub messages: Vec<String>,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Job, Self::File, Self::NoFile, Self::Want, Self::Made, Self::Failed]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A whole message.
pub(super) fn encode(kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut wire = Vec::with_capacity(HEADER + length);
    wire.extend_from_slice(&(length as u32).to_le_bytes());
    wire.push(kind as u8);
    for part in parts {
        wire.extend_from_slice(part);
    }
    wire
}

/// A head of JSON with its length before it.
pub(super) fn head(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    [&(text.len() as u32).to_le_bytes()[..], &text].concat()
}

/// Takes such a head off.
pub(super) fn behead<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((serde_json::from_slice(text).ok()?, rest))
}

/// Length and kind of what follows.
pub(super) fn decode(header: [u8; HEADER]) -> Option<(usize, Kind)> {
    let [length @ .., kind] = header;
    let length = u32::from_le_bytes(length) as usize;
    Some((length, Kind::of(kind)?)).filter(|(length, _)| *length <= MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_and_nonsense_does_not() {
        let job = Job { sheet: 7, path: "/a.xsl".to_owned(), ..Job::default() };
        let wire = encode(Kind::Job, &[&head(&job), b"<a/>"]);
        let (header, rest) = wire.split_first_chunk::<HEADER>().unwrap();
        assert_eq!(decode(*header), Some((rest.len(), Kind::Job)));
        let (again, document) = behead::<Job>(rest).unwrap();
        assert_eq!((again.sheet, &*again.path, document), (7, "/a.xsl", &b"<a/>"[..]));
        for nonsense in [[0, 0, 0, 0, 0], [0, 0, 0, 0, 7], [255, 255, 255, 255, 1]] {
            assert_eq!(decode(nonsense), None);
        }
        for torn in [&b""[..], b"\x05\0\0", b"\x05\0\0\0{}", b"\x02\0\0\0[]"] {
            assert!(behead::<Job>(torn).is_none());
        }
    }
}
