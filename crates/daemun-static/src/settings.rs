//! What is to be done: where files come from, what becomes of them, and where they go.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::pattern::Substitution;

/// A folder of sources.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct Source {
    /// Put before each name, without a slash at its end; mostly empty.
    #[serde(default)]
    pub prefix: String,
    /// The folder.
    pub path: PathBuf,
}

/// One build of a static tree.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where files come from; of two with one name the first wins.
    pub sources: Vec<Source>,
    /// Names and paths that are left out, as `fnmatch` patterns.
    pub ignore: Vec<String>,
    /// Where they go.
    pub destination: PathBuf,
    /// Hashed names and a manifest; `None`: plain copies.
    pub hashing: Option<Hashing>,
    /// Compressed siblings; `None`: none.
    pub compression: Option<Compression>,
    /// Mode of files; default: what the umask leaves of 666.
    pub file_mode: Option<u32>,
    /// Mode of folders that are made; default: what the umask leaves of 777.
    pub folder_mode: Option<u32>,
    /// How long files with hashed names stay that no manifest names any more; `None`: for ever.
    pub keep: Option<Duration>,
    /// Where compressed contents are kept between builds; `None`: nowhere.
    pub cache: Option<CacheSettings>,
    /// Whether nothing may be written.
    pub dry_run: bool,
    /// Whether everything in the destination that this build does not make is removed, after it was published.
    pub clear: bool,
    /// Whether a reference to a missing file is told as a warning and left as it is.
    pub lenient: bool,
}

/// Hashed names and a manifest.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct Hashing {
    /// How references are rewritten.
    pub rewriting: Rewriting,
    /// How often files that refer to others are done again, until their names settle.
    pub passes: usize,
    /// Whether what an earlier pass made is left there.
    pub keep_intermediate: bool,
    /// Whether plain names go once their hashed ones are there.
    pub only_hashed: bool,
    /// The manifest; `None`: none is written.
    pub manifest: Option<ManifestSettings>,
}

/// References in files.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct Rewriting {
    /// Kinds of files and what is replaced in them, in this order.
    pub kinds: Vec<Kind>,
    /// A reference below this path is one to the tree.
    pub static_url: String,
    /// Whether `//host/…` is left as it is.
    pub ignore_protocol_relative: bool,
    /// Whether a reference without a path is left as it is.
    pub ignore_empty_paths: bool,
}

/// Files whose references are rewritten.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct Kind {
    /// The `fnmatch` pattern of their names.
    pub files: String,
    /// What is replaced in them.
    pub substitutions: Vec<Substitution>,
}

/// How the manifest is written.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct ManifestSettings {
    /// Its name, below its folder.
    pub name: String,
    /// Its folder, where that is not the tree itself.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// `version`.
    pub version: String,
    /// Whether names are sorted, instead of standing in the order in which they were processed.
    pub sorted: bool,
    /// Whether the hash of all names is written.
    pub hash: bool,
}

/// Compressed siblings.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct Compression {
    /// Level 1 to 9 of `.gz`.
    pub gzip: Option<u32>,
    /// Level 0 to 11 of `.br`.
    pub brotli: Option<u32>,
    /// Level 1 to 22 of `.zst`.
    pub zstd: Option<u32>,
    /// Extensions, without a dot, of files that are compressed already; case does not count.
    pub skip: Vec<String>,
    /// Whether `.gz` is left out where `.br` does not pay, as whitenoise does.
    #[serde(default)]
    pub gzip_only_with_brotli: bool,
}

/// Compressed contents between builds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CacheSettings {
    /// The folder. It holds nothing that cannot be made again.
    pub folder: PathBuf,
    /// Bytes that it may hold.
    pub limit: u64,
}

/// Extensions of files that are compressed already.
pub const COMPRESSED_EXTENSIONS: &[&str] = &[
    "jpg", "jpeg", "png", "gif", "webp", "avif", "zip", "gz", "tgz", "bz2", "tbz", "xz", "br", "zst", "swf", "flv",
    "woff", "woff2", "3gp", "3gpp", "asf", "avi", "m4v", "mov", "mp3", "mp4", "mpeg", "mpg", "ogg", "opus", "webm",
    "wmv",
];

// === impl Rewriting ===

impl Rewriting {
    /// The references that are rewritten for a tree that no framework describes: `url()`, `@import` and source maps.
    pub fn standard(static_url: &str) -> Self {
        let pattern = |text: &str, dot_all: bool| crate::pattern::PythonPattern {
            text: text.to_owned(),
            ignore_case: !dot_all,
            dot_all,
            multi_line: text.starts_with("(?m)"),
        };
        let substitution = |text: &str, template: &str, ignored: &str| Substitution {
            pattern: pattern(text, false),
            template: template.to_owned(),
            ignored: Some(pattern(ignored, true)),
        };
        let css = r#"/\*.*?\*/|\\.|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*""#;
        let script = r#"/\*.*?\*/|//[^\n]*|\\.|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`"#;
        let url = r#"(?P<matched>url\((?P<quote>['"]{0,1})\s*(?P<url>.*?)(?P=quote)\))"#;
        let import = r#"(?P<matched>@import\s*["']\s*(?P<url>.*?)["'])"#;
        let css_map = r"(?m)^(?P<matched>/\*#[ \t](?-i:sourceMappingURL)=(?P<url>.*)[ \t]*\*/)$";
        let script_map = r"(?m)^(?P<matched>//# (?-i:sourceMappingURL)=(?P<url>.*))$";
        let styles = vec![
            substitution(url, r#"url("%(url)s")"#, css),
            substitution(import, r#"@import url("%(url)s")"#, css),
            substitution(css_map, "/*# sourceMappingURL=%(url)s */", css),
        ];
        let scripts = vec![substitution(script_map, "//# sourceMappingURL=%(url)s", script)];
        Self {
            kinds: vec![
                Kind { files: String::from("*.css"), substitutions: styles },
                Kind { files: String::from("*.js"), substitutions: scripts },
            ],
            static_url: static_url.to_owned(),
            ignore_protocol_relative: true,
            ignore_empty_paths: true,
        }
    }
}

// === impl ManifestSettings ===

impl ManifestSettings {
    /// As the newest Django writes it.
    pub fn standard() -> Self {
        Self {
            name: String::from("staticfiles.json"),
            folder: None,
            version: String::from("1.1"),
            sorted: true,
            hash: true,
        }
    }
}
