//! The files of a configuration: text with places, and which others a file includes.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

use super::environment::{Environment, join};
use super::fault::{ConfigFault, Place, Report};

/// One file of a configuration.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) path: PathBuf,
    /// What relative paths in it are relative to.
    pub(super) folder: PathBuf,
    name: String,
    text: String,
}

impl Document {
    /// Reads a file; `told` is where it was asked for.
    pub(super) fn load(path: &Path, told: &Place, environment: &Environment) -> Result<Self, ConfigFault> {
        let path = environment.absolute(path);
        let name = environment.shown(&path);
        let wrong = |message: String| ConfigFault { place: told.clone(), message };
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(format!("cannot read {name}: {error}")))?;
        let folder = path.parent().map_or_else(|| path.clone(), Path::to_path_buf);
        Ok(Self { path, folder, name, text })
    }

    /// The tables of the file; every mistake in its grammar is told.
    pub(super) fn parse(&self, report: &Report) -> Spanned<DeTable<'_>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        for error in errors {
            report
                .fault(self.place(error.span().map_or(0, |span| span.start)), format!("not TOML: {}", error.message()));
        }
        table
    }

    /// Where a byte of it stands.
    pub(super) fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = before.matches('\n').count() + 1;
        Place::File { name: self.name.clone(), line, column: before[start..].chars().count() + 1 }
    }
}

/// The files that a pattern such as `sites/*.toml` names, sorted. `*` and `?` match within one segment, and no
/// hidden file. A name without either need not be there.
pub(super) fn glob(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for segment in join(folder, pattern).components() {
        let segment = segment.as_os_str();
        let Some(wild) = segment.to_str().filter(|segment| segment.contains(['*', '?'])) else {
            for path in &mut found {
                path.push(segment);
            }
            continue;
        };
        found = found.iter().flat_map(|path| matching(path, wild)).collect();
        found.sort();
    }
    found
}

fn matching(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| !name.starts_with('.') && is_match(name.as_bytes(), pattern.as_bytes()))
        .map(|name| folder.join(name))
        .collect()
}

/// Whether `name` matches `pattern`: backtracks to the last `*` only, so its time is at most their product.
fn is_match(name: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut in_pattern) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match pattern.get(in_pattern) {
            Some(b'*') => {
                star = Some((at, in_pattern));
                in_pattern += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[at] => {
                at += 1;
                in_pattern += 1;
            }
            _ => match star {
                Some((from, place)) => {
                    star = Some((from + 1, place));
                    (at, in_pattern) = (from + 1, place + 1);
                }
                None => return false,
            },
        }
    }
    pattern[in_pattern..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_within_one_folder() {
        for (name, pattern, want) in [
            ("a.toml", "*.toml", true),
            ("a.toml", "?.toml", true),
            ("ab.toml", "?.toml", false),
            ("a.toml.bak", "*.toml", false),
            ("abcabd", "*abd", true),
            ("a", "a*", true),
            ("", "*", true),
            ("b", "a*", false),
        ] {
            assert_eq!(is_match(name.as_bytes(), pattern.as_bytes()), want, "{name} {pattern}");
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["sites/b.toml", "sites/a.toml", "sites/.c.toml", "sites/d.txt"] {
            std::fs::create_dir_all(folder.path().join("sites")).unwrap();
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let sites = folder.path().join("sites");
        assert_eq!(glob(folder.path(), "sites/*.toml"), [sites.join("a.toml"), sites.join("b.toml")]);
        assert_eq!(glob(folder.path(), "s*/a.toml"), [sites.join("a.toml")]);
        assert_eq!(glob(folder.path(), "none/*.toml"), [] as [PathBuf; 0]);
    }
}
