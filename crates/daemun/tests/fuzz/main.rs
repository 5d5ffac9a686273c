//! The fuzz targets without a fuzzer: over the corpus, over everything that was ever found, and over mutations of both
//! by a seed that is printed. What fails is kept in `fuzz/findings`, where the next run begins with it.
//!
//! `scripts/fuzz` runs the same targets guided by what the bytes reach.

#![expect(clippy::panic, reason = "a finding is a panic")]

#[path = "../../../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a crate of its own for the fuzzer")]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use targets::{TARGETS, Target};

/// Mutations of each target; one of the configuration's costs as much as a hundred of the others.
const ROUNDS: u64 = 20_000;
const ROUNDS_OF_CONFIGURATION: u64 = 400;

/// Bytes beyond which an input does not grow.
const LONGEST: usize = 2048;

/// What readers look for, and a byte that is changed at random seldom becomes.
const WORDS: [&[u8]; 40] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"=",
    b"\"",
    b"\\",
    b"/",
    b"//",
    b"/../",
    b"/./",
    b"%2f",
    b"%2e",
    b"%00",
    b"%",
    b"?",
    b"#",
    b"*",
    b"@",
    b"[::1]",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"18446744073709551616",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 3\r\n",
    b"Host: b\r\n",
    b"Connection: close, x\r\n",
    b"X-Forwarded-For: 10.0.0.2, ::1\r\n",
    b"X-Forwarded-Proto: https\r\n",
    b"Forwarded: for=\"[::1]:1\";proto=https\r\n",
    b"http://a",
    b" HTTP/1.1\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"PROXY TCP4 ",
    b"\xff",
];

/// xorshift: the same inputs for the same seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: usize) -> usize {
        if most == 0 { 0 } else { (self.next() % most as u64) as usize }
    }
}

fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(kind).join(target)
}

/// The files of a folder, in the order of their names.
fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder(kind, target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("a file of the corpus"))).collect()
}

fn mutate(input: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len() + 1);
        let until = at + chance.below(bytes.len() - at + 1).min(24);
        match chance.below(7) {
            0 if at < bytes.len() => bytes[at] = chance.next() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            2 => drop(bytes.splice(at..at, WORDS[chance.below(WORDS.len())].iter().copied())),
            3 => drop(bytes.splice(at..until, WORDS[chance.below(WORDS.len())].iter().copied())),
            4 => drop(bytes.drain(at..until)),
            5 => drop(bytes.splice(at..at, bytes[at..until].to_vec())),
            _ => {
                let from = chance.below(other.len() + 1);
                drop(bytes.splice(at..until, other[from..].iter().take(64).copied()));
            }
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

/// Runs a target; what fails is kept, and told by its file.
fn run(name: &str, target: Target, input: &[u8], source: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_ok() {
        return;
    }
    let kept = folder("findings", name);
    fs::create_dir_all(&kept).expect("a folder for what was found");
    let sum = input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let path = kept.join(format!("{sum:016x}"));
    fs::write(&path, input).expect("a place for what was found");
    panic!("{name} failed on {source}; it is kept as {}", path.display());
}

fn fuzz(name: &str) {
    let (_, target) = *TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    let corpus = inputs("corpus", name);
    assert!(!corpus.is_empty(), "fuzz/corpus/{name} is empty");
    let all: Vec<(PathBuf, Vec<u8>)> = corpus.into_iter().chain(inputs("findings", name)).collect();
    for (path, input) in &all {
        run(name, target, input, &path.display().to_string());
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("DAEMUN_FUZZ_SEED").unwrap_or(20_260_101);
    println!("DAEMUN_FUZZ_SEED={seed}");
    let mut chance = Chance(seed | 1);
    let rounds = if name == "configuration" { ROUNDS_OF_CONFIGURATION } else { ROUNDS };
    for round in 0..rounds * number("DAEMUN_FUZZ_TIMES").unwrap_or(1) {
        let (one, other) = (chance.below(all.len()), chance.below(all.len()));
        let input = mutate(&all[one].1, &all[other].1, &mut chance);
        run(name, target, &input, &format!("round {round} of DAEMUN_FUZZ_SEED={seed}"));
    }
}

#[test]
fn a_head_has_one_reading_or_none() {
    fuzz("request_head");
}

#[test]
fn chunks_say_the_same_under_every_split() {
    fuzz("chunked");
}

#[test]
fn a_canonical_path_is_canonical() {
    fuzz("path");
}

#[test]
fn an_authority_that_is_taken_names_one_host() {
    fuzz("authority");
}

#[test]
fn an_answer_of_a_server_has_one_end() {
    fuzz("answer_head");
}

#[test]
fn a_strangers_word_about_where_it_comes_from_is_not_heard() {
    fuzz("forwarded");
}

#[test]
fn a_proxy_header_says_what_stands_in_it() {
    fuzz("proxy_protocol");
}

#[test]
fn a_file_gives_a_configuration_or_faults_with_their_places() {
    fuzz("configuration");
}

#[test]
fn the_head_of_a_program_ends_at_one_place() {
    fuzz("cgi_head");
}

#[test]
fn frames_of_a_worker_are_read_within_their_bounds() {
    fuzz("frames");
}

#[test]
fn records_of_fastcgi_are_read_the_same_on_both_sides_under_every_split() {
    fuzz("fastcgi");
}

#[test]
fn the_head_of_scgi_ends_at_one_place() {
    fuzz("scgi");
}

#[test]
fn a_packet_of_uwsgi_is_all_that_its_length_says() {
    fuzz("uwsgi");
}

#[test]
fn every_target_has_a_test_here() {
    let text = include_str!("main.rs");
    for (name, _) in TARGETS {
        assert!(text.contains(&format!("fuzz(\"{name}\");")), "no test runs the target {name}");
    }
}
