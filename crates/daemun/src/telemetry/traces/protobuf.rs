//! Protocol buffers, as far as the messages of OTLP need them: a message is a row of fields, each a number, a kind and a
//! value, and a message in a message is its bytes behind their length.

use std::time::{SystemTime, UNIX_EPOCH};

/// What of a value follows the number of its field.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

/// A message that is being written. What is nothing is not written: that is what a reader takes for it.
#[derive(Debug, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    /// A number of variable length.
    pub fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(field << 3 | VARINT));
            self.varint(value);
        }
    }

    /// Bytes, a text, or a message that is written already.
    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.varint(u64::from(field << 3 | LENGTH));
            self.varint(value.len() as u64);
            self.0.extend_from_slice(value);
        }
    }

    /// A text as it came from outside: what is no UTF-8 is replaced.
    pub fn text(&mut self, field: u32, value: &[u8]) {
        match std::str::from_utf8(value) {
            Ok(_) => self.bytes(field, value),
            Err(_) => self.bytes(field, String::from_utf8_lossy(value).as_bytes()),
        }
    }

    /// A message.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        let mut message = Message::default();
        write(&mut message);
        self.varint(u64::from(field << 3 | LENGTH));
        self.varint(message.0.len() as u64);
        self.0.append(&mut message.0);
    }

    /// A moment, in nanoseconds since 1970.
    pub fn moment(&mut self, field: u32, at: SystemTime) {
        let nanos = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        self.varint(u64::from(field << 3 | FIXED64));
        self.0.extend_from_slice(&nanos.to_le_bytes());
    }

    /// A number of four bytes.
    pub fn fixed32(&mut self, field: u32, value: u32) {
        self.varint(u64::from(field << 3 | FIXED32));
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A field of a message that is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field<'a> {
    /// A number.
    Number(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message that came from outside, up to the first that is not valid.
pub fn fields(mut message: &[u8]) -> impl Iterator<Item = (u32, Field<'_>)> {
    std::iter::from_fn(move || {
        let key = read_varint(&mut message)?;
        let value = match key as u32 & 7 {
            VARINT => Field::Number(read_varint(&mut message)?),
            FIXED64 => Field::Number(u64::from_le_bytes(take(&mut message, 8)?.try_into().ok()?)),
            FIXED32 => Field::Number(u32::from_le_bytes(take(&mut message, 4)?.try_into().ok()?).into()),
            LENGTH => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                Field::Bytes(take(&mut message, length)?)
            }
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, value))
    })
}

fn read_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..10 {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_written_is_what_the_encoding_says() {
        let mut message = Message::default();
        message.number(1, 150);
        message.bytes(2, b"testing");
        message.message(3, |inner| inner.number(1, 150));
        // The examples of the encoding's own page.
        assert_eq!(message.0, b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01");
        let mut message = Message::default();
        message.number(1, 0);
        message.bytes(2, b"");
        message.text(16, b"a\xff");
        message.fixed32(16, 0x301);
        message.moment(7, UNIX_EPOCH + Duration::from_nanos(0x0102));
        assert_eq!(message.0, b"\x82\x01\x04a\xef\xbf\xbd\x85\x01\x01\x03\0\0\x39\x02\x01\0\0\0\0\0\0");
    }

    #[test]
    fn what_is_read_is_what_was_written_and_ends_where_it_is_broken() {
        let mut message = Message::default();
        message.number(1, u64::MAX);
        message.message(2, |inner| inner.bytes(2, b"why"));
        message.fixed32(3, 7);
        let read: Vec<_> = fields(&message.0).collect();
        let want = [(1, Field::Number(u64::MAX)), (2, Field::Bytes(b"\x12\x03why")), (3, Field::Number(7))];
        assert_eq!(read, want);
        for length in 0..message.0.len() {
            assert!(fields(&message.0[..length]).count() < 3);
        }
        for broken in [&b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..], b"\x0b", &[0x80; 11], b"\x0a\x05abc"] {
            assert_eq!(fields(broken).count(), 0);
        }
    }
}
