//! What front and launcher say to each other: one packet each, all numbers little-endian.

use std::ffi::CStr;

use bytes::{Buf, BufMut};

use crate::sys::Step;

/// Largest packet: beyond it the kernel's buffer for one may not suffice.
pub(super) const MAX_PACKET: usize = 192 * 1024;

/// Bytes of one word of the launcher; a packet has several.
const WORD: usize = 18;

/// Largest packet of them.
pub(super) const MAX_WORDS: usize = 128 * WORD;

const START: u8 = 1;
const END: u8 = 2;
const RELEASE: u8 = 3;
const ENDED: u8 = 4;
const FAILED: u8 = 5;

/// A program that is to be started, ready to be executed. Its standard input, output and error come along.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Start {
    /// Which profile.
    pub profile: u32,
    /// Whether the profile's warm interpreter runs it.
    pub reuse: bool,
    /// Program, working folder, arguments, then `NAME=value` of the environment, each ended by a NUL.
    strings: Vec<u8>,
    arguments: u16,
    environment: u16,
}

impl Start {
    /// A start of `program` in `directory` with neither arguments nor environment. Both are absolute paths without NULs.
    pub fn new(profile: u32, program: &[u8], directory: &[u8]) -> Self {
        let mut start = Self { profile, strings: Vec::with_capacity(2048), ..Self::default() };
        start.push(program);
        start.push(directory);
        start
    }

    /// One more argument, the name of the program first. All of them come before the environment.
    pub fn argument(&mut self, argument: &[u8]) {
        self.arguments = self.arguments.saturating_add(1);
        self.push(argument);
    }

    /// The environment as names and values, each ended by a NUL.
    pub fn environment(&mut self, pairs: &[u8]) {
        let mut parts = pairs.split(|&byte| byte == 0);
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            self.environment = self.environment.saturating_add(1);
            self.strings.extend_from_slice(name);
            self.strings.push(b'=');
            self.push(value);
        }
    }

    fn push(&mut self, text: &[u8]) {
        // A NUL would begin another string: what comes after it in its own is not told.
        let end = memchr::memchr(0, text).unwrap_or(text.len());
        self.strings.extend_from_slice(&text[..end]);
        self.strings.push(0);
    }
}

/// A [`Start`] as it arrives.
#[derive(Debug)]
pub(super) struct Received<'a> {
    pub(super) id: u64,
    pub(super) profile: u32,
    pub(super) reuse: bool,
    pub(super) program: &'a CStr,
    pub(super) directory: &'a CStr,
    pub(super) arguments: Vec<&'a CStr>,
    pub(super) environment: Vec<&'a CStr>,
}

/// The front's word.
#[derive(Debug)]
pub(super) enum FromFront<'a> {
    /// Start this.
    Start(Received<'a>),
    /// Nobody wants it any more: its process group ends.
    End(u64),
    /// Its request is over: whoever it has left in its process group ends.
    Release(u64),
}

/// The launcher's word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FromLauncher {
    /// It has ended.
    Ended {
        id: u64,
        /// Its exit code, or `None` for a death by signal.
        code: Option<i32>,
        signal: Option<i32>,
        /// Whether others of its process group go on.
        left_others: bool,
    },
    /// It could not be started.
    Failed { id: u64, step: Step, number: i32 },
}

/// `start` as the packet of the run `id`.
pub(super) fn encode_start(id: u64, start: &Start) -> Vec<u8> {
    let mut out = Vec::with_capacity(start.strings.len() + 24);
    out.put_u8(START);
    out.put_u64_le(id);
    out.put_u32_le(start.profile);
    out.put_u8(u8::from(start.reuse));
    out.put_u16_le(start.arguments);
    out.put_u16_le(start.environment);
    out.extend_from_slice(&start.strings);
    out
}

/// The packet that ends the run `id`; with `gently` only what it has left behind.
pub(super) fn encode_end(id: u64, gently: bool) -> [u8; 9] {
    let mut out = [if gently { RELEASE } else { END }; 9];
    out[1..].copy_from_slice(&id.to_le_bytes());
    out
}

/// Reads the front's packet; `None` for one that is none.
pub(super) fn decode_from_front(mut packet: &[u8]) -> Option<FromFront<'_>> {
    let kind = packet.try_get_u8().ok()?;
    let id = packet.try_get_u64_le().ok()?;
    match kind {
        END => return Some(FromFront::End(id)),
        RELEASE => return Some(FromFront::Release(id)),
        START => {}
        _ => return None,
    }
    let (profile, reuse) = (packet.try_get_u32_le().ok()?, packet.try_get_u8().ok()? != 0);
    let (arguments, environment) = (packet.try_get_u16_le().ok()?, packet.try_get_u16_le().ok()?);
    let mut strings = Strings(packet);
    let (program, directory) = (strings.next()?, strings.next()?);
    let mut several = |count: u16| {
        let mut several = Vec::with_capacity(count.into());
        several.extend(strings.by_ref().take(count.into()));
        several
    };
    let (all_arguments, all_environment) = (several(arguments), several(environment));
    let whole = all_arguments.len() == usize::from(arguments) && all_environment.len() == usize::from(environment);
    whole.then_some(FromFront::Start(Received {
        id,
        profile,
        reuse,
        program,
        directory,
        arguments: all_arguments,
        environment: all_environment,
    }))
}

/// Appends the launcher's word to a packet of them.
pub(super) fn encode_from_launcher(out: &mut Vec<u8>, word: FromLauncher) {
    let (kind, id, first, second, last) = match word {
        FromLauncher::Ended { id, code, signal, left_others } => {
            (ENDED, id, code.unwrap_or(-1), signal.unwrap_or(-1), u8::from(left_others))
        }
        FromLauncher::Failed { id, step, number } => {
            let step = Step::ALL.iter().position(|&other| other == step).unwrap_or_default();
            (FAILED, id, number, 0, step as u8)
        }
    };
    out.reserve(WORD);
    out.put_u8(kind);
    out.put_u64_le(id);
    out.put_i32_le(first);
    out.put_i32_le(second);
    out.put_u8(last);
}

/// Reads a packet of the launcher's words, up to the first that is none.
pub(super) fn decode_from_launcher(packet: &[u8]) -> impl Iterator<Item = FromLauncher> {
    packet.chunks_exact(WORD).map_while(decode_word)
}

fn decode_word(mut word: &[u8]) -> Option<FromLauncher> {
    let (kind, id) = (word.try_get_u8().ok()?, word.try_get_u64_le().ok()?);
    let (first, second) = (word.try_get_i32_le().ok()?, word.try_get_i32_le().ok()?);
    let last = word.try_get_u8().ok()?;
    let some = |number: i32| (number >= 0).then_some(number);
    match kind {
        ENDED => Some(FromLauncher::Ended { id, code: some(first), signal: some(second), left_others: last != 0 }),
        FAILED => Some(FromLauncher::Failed { id, step: *Step::ALL.get(usize::from(last))?, number: first }),
        _ => None,
    }
}

/// Strings that each end with a NUL.
struct Strings<'a>(&'a [u8]);

impl<'a> Iterator for Strings<'a> {
    type Item = &'a CStr;

    fn next(&mut self) -> Option<&'a CStr> {
        let text = CStr::from_bytes_until_nul(self.0).ok()?;
        self.0 = &self.0[text.to_bytes_with_nul().len()..];
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_arrives_as_it_was_sent() {
        let mut start = Start::new(3, b"/bin/a b", b"/srv");
        start.argument(b"a b");
        start.argument(b"");
        start.environment(b"PATH\0/bin\0EMPTY\0\0X\0a=b\0");
        let packet = encode_start(9, &start);
        let Some(FromFront::Start(received)) = decode_from_front(&packet) else { unreachable!("a start") };
        assert_eq!((received.id, received.profile, received.reuse), (9, 3, false));
        assert_eq!((received.program, received.directory), (c"/bin/a b", c"/srv"));
        assert_eq!(received.arguments, [c"a b", c""]);
        assert_eq!(received.environment, [c"PATH=/bin", c"EMPTY=", c"X=a=b"]);
    }

    #[test]
    fn a_packet_that_is_cut_is_nothing() {
        let mut start = Start::new(1, b"/bin/true", b"/");
        start.argument(b"true");
        start.environment(b"A\0b\0");
        let packet = encode_start(1, &start);
        for end in 0..packet.len() {
            assert!(decode_from_front(&packet[..end]).is_none(), "{end}");
        }
        assert!(matches!(decode_from_front(&encode_end(7, false)), Some(FromFront::End(7))));
        assert!(matches!(decode_from_front(&encode_end(7, true)), Some(FromFront::Release(7))));
    }

    #[test]
    fn the_launchers_words_arrive_as_they_were_said() {
        let words = [
            FromLauncher::Ended { id: 1, code: Some(0), signal: None, left_others: false },
            FromLauncher::Ended { id: u64::MAX, code: None, signal: Some(9), left_others: true },
            FromLauncher::Failed { id: 2, step: Step::Execute, number: libc::ENOENT },
        ];
        let mut packet = Vec::new();
        for word in words {
            encode_from_launcher(&mut packet, word);
        }
        assert_eq!(decode_from_launcher(&packet).collect::<Vec<_>>(), words);
        assert_eq!(decode_from_launcher(&packet[..packet.len() - 1]).count(), 2, "one that is cut is nothing");
        assert_eq!(decode_from_launcher(b"\x04").count(), 0);
    }
}
