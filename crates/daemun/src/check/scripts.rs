//! CGI scripts, before the first request meets them.

use std::path::Path;

use super::Examination;
use super::folders::walk;
use crate::cgi::CgiSettings;
use crate::cgi::faults::{ScriptFault, faults};
use crate::codes::Finding;
use crate::config::{Configuration, HandlerSettings};
use crate::router::PathPattern;

/// The rules about scripts that are run.
const CODES: &[&str] = &["D301", "D302", "D303", "D304", "D305", "D306", "D308"];

/// Bytes of a script that are read for its header.
const LONGEST: u64 = 64 * 1024;

/// Checks every script of every CGI route.
pub(super) fn check(configuration: &Configuration, examination: &mut Examination) {
    let routes = configuration.routes.iter().filter_map(|route| match &route.handler {
        HandlerSettings::Cgi(settings) => Some((&route.rule.path, &**settings)),
        _ => None,
    });
    let folders: Vec<(&PathPattern, &CgiSettings, &Path)> =
        routes.filter_map(|(path, settings)| Some((path, settings, settings.script_root()?))).collect();
    if folders.is_empty() {
        return examination.skip(CODES, "there is no CGI route with scripts");
    }
    examination.run(CODES);
    for (path, settings, root) in folders {
        let suffix = match path {
            PathPattern::Prefix { suffix, .. } => suffix.as_str(),
            PathPattern::Exact(_) => "",
        };
        for script in walk(root).filter(|script| name(script).ends_with(suffix)) {
            one(settings, &script, examination);
        }
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn one(settings: &CgiSettings, script: &Path, examination: &mut Examination) {
    let mapped = settings.interpreters.iter().any(|(ending, _)| name(script).ends_with(ending.as_str()));
    if !mapped && !is_script(script) {
        return;
    }
    for fault in faults(script) {
        // A mapped script is given to its interpreter: neither its mode nor its first line matters.
        if mapped && fault != ScriptFault::WorldWritable {
            continue;
        }
        let (code, line) = match &fault {
            ScriptFault::NotExecutable => ("D301", None),
            ScriptFault::CarriageReturn(_) => ("D302", Some(1)),
            ScriptFault::MissingInterpreter(_) => ("D303", Some(1)),
            ScriptFault::NoInterpreter => ("D304", Some(1)),
            ScriptFault::ByteOrderMark => ("D305", Some(1)),
            ScriptFault::WorldWritable => ("D306", None),
        };
        let told = fault.told(script);
        let finding = match told.split_once("; ") {
            Some((message, mend)) => Finding::new(code, message).mend(mend),
            None => Finding::new(code, told),
        };
        examination.add(finding.at(script.display().to_string(), line));
    }
    if writes_no_header(script) {
        let message =
            format!("{} names no Content-Type, Location or Status: without one its answer is 500", script.display());
        let finding = Finding::new("D308", message).at(script.display().to_string(), None);
        examination.add(finding.mend("begin its output with: printf 'Content-Type: text/plain\\r\\n\\r\\n'"));
    }
}

/// Whether a file means to be executed, and is no data or library beside.
pub(super) fn is_script(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let is_executable = std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0);
    is_executable || path.extension().is_some_and(|ending| ending == "cgi") || has_shebang(path)
}

/// Whether it begins with `#!`, be it behind a byte order mark.
pub(super) fn has_shebang(path: &Path) -> bool {
    let beginning = beginning(path, 5);
    beginning.starts_with(b"#!") || beginning.starts_with(b"\xef\xbb\xbf#!")
}

fn beginning(path: &Path, bytes: u64) -> Vec<u8> {
    use std::io::Read;
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What cannot be read says nothing.
        let _ = file.take(bytes).read_to_end(&mut text);
    }
    text
}

/// Whether a shell script can be seen to write no header: none stands in it, and it runs nothing that could write one.
fn writes_no_header(script: &Path) -> bool {
    let text = beginning(script, LONGEST);
    if text.len() as u64 == LONGEST {
        return false;
    }
    let text = String::from_utf8_lossy(&text).to_ascii_lowercase();
    let Some((first, rest)) = text.split_once('\n') else { return false };
    let is_shell = first.starts_with("#!")
        && ["sh", "bash", "dash"].iter().any(|shell| first.trim_end().ends_with(&format!("/{shell}")));
    if !is_shell || ["content-type", "location:", "status:"].iter().any(|word| text.contains(word)) {
        return false;
    }
    // These write nothing but what stands in the line.
    let writes_itself = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or("#");
        word.starts_with('#') || word == "echo" || word == "printf" || word == "exit" || word == "set"
    };
    let own = rest.lines().all(|line| writes_itself(line) && !line.contains(['`', '|', ';', '&', '$']));
    own && rest.contains("echo") | rest.contains("printf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_script_that_cannot_write_a_header_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.cgi");
        for (text, want) in [
            ("#!/bin/sh\necho hello\n", true),
            ("#!/bin/sh\n# says hello\nprintf 'hello\\n'\nexit 0\n", true),
            ("#!/bin/sh\necho Content-type: text/plain\necho\n", false),
            ("#!/bin/sh\necho hello\n./other\n", false),
            ("#!/bin/sh\necho $(./other)\n", false),
            ("#!/bin/sh\n. ./lib.sh\necho hello\n", false),
            ("#!/usr/bin/perl\nprint 'hello';\n", false),
            ("#!/bin/sh\n", false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(writes_no_header(&path), want, "{text}");
        }
    }
}
