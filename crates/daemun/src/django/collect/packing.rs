//! Compressed siblings for `daemun.django.storage`, where Django's own `collectstatic` made the tree: what Python would
//! do one file after the other, and only with packages that few have installed.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Levels;

/// The role of this process.
pub const ROLE: &str = "--role=compress";

/// Longest list of names that is read: a million of them.
const LONGEST: u64 = 256 * 1024 * 1024;

/// Compresses the files whose names stand in standard input, with NUL between them. The arguments are `--gzip=9` and so
/// on, or `off`.
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut compression = Levels::nothing();
    // Which files are tried was decided already.
    compression.skip.clear();
    for argument in arguments {
        let Some((name, level)) = argument.trim_start_matches('-').split_once('=') else { continue };
        let level = level.parse().ok();
        match name {
            "gzip" => compression.gzip = level,
            "brotli" => compression.brotli = level,
            "zstd" => compression.zstd = level,
            _ => {}
        }
    }
    let mut names = Vec::new();
    if let Err(error) = std::io::stdin().take(LONGEST).read_to_end(&mut names) {
        eprintln!("daemun: compress: no names: {error}");
        return ExitCode::FAILURE;
    }
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let files: Vec<PathBuf> = names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect();
    match daemun_static::compress_in_place(&files, &compression) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("daemun: compress: {error}");
            ExitCode::FAILURE
        }
    }
}
