//! What is wrong with a script, in the words of somebody who has to mend it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::settings::find_program;
use crate::launcher::LaunchError;
use crate::sys::Step;

/// Bytes of a script's beginning that are looked at: the kernel reads 256 of its first line.
const BEGINNING: u64 = 256;

/// A classic mistake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ScriptFault {
    /// Nobody may execute it.
    NotExecutable,
    /// Its first line ends with CR LF, and the interpreter's name then with CR.
    CarriageReturn(String),
    /// The interpreter of its first line is not there.
    MissingInterpreter(String),
    /// It has no `#!` line and is no program.
    NoInterpreter,
    /// A mark of a text editor stands before `#!`.
    ByteOrderMark,
    /// Everybody may write to it.
    WorldWritable,
}

impl ScriptFault {
    /// What is wrong and what mends it.
    pub fn told(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::NotExecutable => format!("{path} is not executable; run chmod +x {path}"),
            Self::CarriageReturn(line) => format!(
                "the first line of {path}, `{line}`, ends with CR LF, and there is no interpreter of that name; run \
                 sed -i 's/\\r$//' {path}"
            ),
            Self::MissingInterpreter(name) => format!(
                "the interpreter {name} in the first line of {path} is not there; install it, or write another there, \
                 such as `#!/usr/bin/env {}`",
                name.rsplit('/').next().unwrap_or(name)
            ),
            Self::NoInterpreter => format!(
                "{path} is neither a program nor does it begin with a line such as `#!/usr/bin/env perl`; write one, \
                 or name its interpreter: interpreters = {{ \"{}\" = \"perl\" }}",
                ending(&path.to_string())
            ),
            Self::ByteOrderMark => format!(
                "{path} begins with a byte order mark, which hides its `#!` line; run sed -i '1s/^\\xEF\\xBB\\xBF//' {path}"
            ),
            Self::WorldWritable => format!("{path} can be written by everybody; run chmod o-w {path}"),
        }
    }
}

fn ending(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rfind('.').filter(|&dot| dot > 0).map_or(".pl", |dot| &name[dot..])
}

/// Everything that is wrong with a script that is executed itself, as far as we may look.
pub fn faults(path: &Path) -> Vec<ScriptFault> {
    let mut faults = Vec::new();
    if let Ok(found) = std::fs::metadata(path) {
        let mode = found.permissions().mode();
        if mode & 0o111 == 0 {
            faults.push(ScriptFault::NotExecutable);
        }
        if mode & 0o002 != 0 {
            faults.push(ScriptFault::WorldWritable);
        }
    }
    faults.extend(fault_of_beginning(path));
    faults
}

/// What is wrong with its first line.
fn fault_of_beginning(path: &Path) -> Option<ScriptFault> {
    let beginning = beginning(path).ok()?;
    if beginning.starts_with(b"\xef\xbb\xbf#!") {
        return Some(ScriptFault::ByteOrderMark);
    }
    let Some(line) = beginning.strip_prefix(b"#!") else {
        let is_program = beginning.starts_with(b"\x7fELF");
        return (!is_program).then_some(ScriptFault::NoInterpreter);
    };
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    if line.ends_with(b"\r") {
        return Some(ScriptFault::CarriageReturn(format!("#!{}", text.trim_end())));
    }
    let mut words = text.split_ascii_whitespace();
    let interpreter = words.next()?;
    if !Path::new(interpreter).exists() {
        return Some(ScriptFault::MissingInterpreter(interpreter.to_owned()));
    }
    // `env` looks the next word up; its own options come before it.
    let looked_up =
        interpreter.ends_with("/env").then(|| words.find(|word| !word.starts_with('-') && !word.contains('=')));
    let missing = looked_up.flatten().filter(|name| find_program(name).is_none());
    missing.map(|name| ScriptFault::MissingInterpreter(name.to_owned()))
}

fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BEGINNING).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether the first line names a Python; a script that cannot be read is told by its ending.
pub(super) fn is_python(path: &Path) -> bool {
    if path.extension().is_some_and(|ending| ending == "py") {
        return true;
    }
    let Ok(beginning) = beginning(path) else { return false };
    let line = beginning.split(|&byte| byte == b'\n').next().unwrap_or_default();
    line.starts_with(b"#!") && memchr::memmem::find(line, b"python").is_some()
}

/// Why a program was not started, for the log.
pub(super) struct Why<'a> {
    /// The script, or the program itself.
    pub(super) path: &'a Path,
    /// What was executed, if that is not the script.
    pub(super) program: Option<&'a Path>,
    pub(super) error: &'a LaunchError,
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let LaunchError::Start { step, error } = self.error else {
            return write!(f, "{path} was not started: {}", self.error);
        };
        let number = error.raw_os_error().unwrap_or_default();
        if let (Step::Execute, Some(program)) = (step, self.program) {
            return write!(f, "{path}: its interpreter {} was not executed: {error}", program.display());
        }
        let known = fault_of_beginning(self.path);
        match (step, number) {
            (Step::Execute, libc::ENOENT | libc::ENOEXEC) => match known {
                Some(fault) => f.write_str(&fault.told(self.path)),
                None if number == libc::ENOEXEC => f.write_str(&ScriptFault::NoInterpreter.told(self.path)),
                None => write!(
                    f,
                    "{path} was not executed: {error}; the interpreter in its first line is missing, or that line ends \
                     with CR LF"
                ),
            },
            (Step::Execute, libc::EACCES) => write!(
                f,
                "{path} was not executed: {error}; its user needs the right to execute it and to enter the folders above \
                 it, and the disk must not be mounted with noexec"
            ),
            (Step::Directory, _) => {
                let folder = self.path.parent().map(PathBuf::from).unwrap_or_default();
                write!(f, "{path} was not started: its user cannot enter {}: {error}", folder.display())
            }
            (Step::Process, libc::EAGAIN) => write!(f, "{path} was not started: too many processes: {error}"),
            (Step::Descriptors, _) => write!(f, "{path} was not started: the launcher has no descriptor left: {error}"),
            _ => write!(f, "{path} was not started: {error} ({step:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn faults_of(text: &[u8], mode: u32) -> Vec<ScriptFault> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script.pl");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        faults(&path)
    }

    #[test]
    fn each_classic_mistake_is_found() {
        for (text, mode, want) in [
            (&b"#!/bin/sh\necho"[..], 0o755, vec![]),
            (b"#!/usr/bin/env -S FOO=1 sh -e\n", 0o755, vec![]),
            (b"\x7fELF\0", 0o755, vec![]),
            (b"#!/bin/sh\n", 0o644, vec![ScriptFault::NotExecutable]),
            (b"#!/bin/sh\n", 0o757, vec![ScriptFault::WorldWritable]),
            (b"#!/bin/sh\r\necho", 0o755, vec![ScriptFault::CarriageReturn("#!/bin/sh".to_owned())]),
            (b"#!/opt/no/perl\n", 0o755, vec![ScriptFault::MissingInterpreter("/opt/no/perl".to_owned())]),
            (b"#!/usr/bin/env nosuchperl\n", 0o755, vec![ScriptFault::MissingInterpreter("nosuchperl".to_owned())]),
            (b"print 1;\n", 0o755, vec![ScriptFault::NoInterpreter]),
            (b"\xef\xbb\xbf#!/bin/sh\n", 0o755, vec![ScriptFault::ByteOrderMark]),
        ] {
            assert_eq!(faults_of(text, mode), want, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn each_fault_names_the_file_and_the_line_that_mends_it() {
        let path = Path::new("/srv/a.py");
        assert!(ScriptFault::NotExecutable.told(path).ends_with("run chmod +x /srv/a.py"));
        assert!(ScriptFault::NoInterpreter.told(path).contains("interpreters = { \".py\" = "));
    }
}
