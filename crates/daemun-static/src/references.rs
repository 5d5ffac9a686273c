//! References in one file: found, resolved, rewritten. The `url_converter` of Django's `HashedFilesMixin`.

use regex::{Captures, Regex};

use crate::glob;
use crate::pattern::{Compiled, Piece, Substitution};
use crate::settings::Rewriting;
use crate::url;

/// Why a reference has no hashed name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Unresolved {
    /// The file is not there.
    Missing(String),
    /// It would lie outside.
    Outside,
}

/// A reference that could not be resolved, and where it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    pub(crate) why: Unresolved,
    pub(crate) line: usize,
    pub(crate) reference: String,
}

/// The substitutions of a storage, ready to be made.
#[derive(Debug)]
pub(crate) struct Rewriter<'a> {
    settings: &'a Rewriting,
    /// By the pattern of the files' names.
    kinds: Vec<(String, Vec<Compiled>)>,
}

/// What came of a file.
pub(crate) struct Rewritten {
    pub(crate) text: String,
    pub(crate) faults: Vec<Fault>,
}

impl<'a> Rewriter<'a> {
    /// Compiles the substitutions, or says what is not understood.
    pub(crate) fn new(settings: &'a Rewriting) -> Result<Self, String> {
        let compile = |substitutions: &[Substitution]| -> Result<Vec<Compiled>, String> {
            substitutions.iter().map(Substitution::compile).collect()
        };
        let kinds = settings
            .kinds
            .iter()
            .map(|kind| Ok((kind.files.clone(), compile(&kind.substitutions)?)))
            .collect::<Result<_, String>>()?;
        Ok(Self { settings, kinds })
    }

    /// Whether files of this name are read for references.
    pub(crate) fn is_adjustable(&self, name: &str) -> bool {
        self.kinds.iter().any(|(files, _)| glob::matches(name, files))
    }

    /// Whether any reference may stand in this text.
    pub(crate) fn finds_any(&self, path: &str, text: &str) -> bool {
        self.patterns(path).any(|pattern| pattern.regex.is_match(text))
    }

    fn patterns(&self, path: &str) -> impl Iterator<Item = &Compiled> {
        self.kinds.iter().filter(move |(files, _)| glob::matches(path, files)).flat_map(|(_, patterns)| patterns)
    }

    /// Rewrites each reference of the file `name`, whose path below its source is `path`. `stored` gives a file's
    /// hashed name. Without `lenient`, the first fault ends it.
    pub(crate) fn rewrite(
        &self,
        name: &str,
        path: &str,
        text: &str,
        lenient: bool,
        stored: &mut dyn FnMut(&str) -> Result<String, Unresolved>,
    ) -> Rewritten {
        let mut rewritten = Rewritten { text: text.to_owned(), faults: Vec::new() };
        for pattern in self.patterns(path) {
            let ignored = pattern.ignored.as_ref().map(|ignored| blocks(ignored, &rewritten.text));
            let mut out = String::with_capacity(rewritten.text.len() + 64);
            let mut copied = 0;
            for found in pattern.regex.captures_iter(&rewritten.text) {
                let Some(whole) = found.get(0) else { continue };
                out.push_str(&rewritten.text[copied..whole.start()]);
                copied = whole.end();
                let skipped = ignored.as_ref().is_some_and(|blocks| is_inside(whole.start(), blocks));
                match self.replacement(name, pattern, &found, skipped, stored) {
                    Ok(text) => out.push_str(&text),
                    Err(why) => {
                        let line = 1 + rewritten.text[..whole.start()].bytes().filter(|&byte| byte == b'\n').count();
                        rewritten.faults.push(Fault { why, line, reference: whole.as_str().to_owned() });
                        if !lenient {
                            return rewritten;
                        }
                        out.push_str(whole.as_str());
                    }
                }
            }
            out.push_str(&rewritten.text[copied..]);
            rewritten.text = out;
        }
        rewritten
    }

    fn replacement(
        &self,
        name: &str,
        pattern: &Compiled,
        found: &Captures<'_>,
        skipped: bool,
        stored: &mut dyn FnMut(&str) -> Result<String, Unresolved>,
    ) -> Result<String, Unresolved> {
        let matched = || found.get(pattern.matched).map_or_else(String::new, |text| text.as_str().to_owned());
        let reference = pattern.url.iter().find_map(|&group| found.get(group)).map_or("", |url| url.as_str());
        if skipped || self.is_foreign(reference) {
            return Ok(matched());
        }
        let (path, fragment) = url::defragment(reference);
        if path.is_empty() && self.settings.ignore_empty_paths {
            return Ok(matched());
        }
        let target = match path.strip_prefix(&self.settings.static_url).filter(|_| path.starts_with('/')) {
            Some(below) => below.to_owned(),
            None => url::join(url::folder_of(name), &path),
        };
        let hashed = hashed_url(&url::unquote(&target), stored)?;
        let last = hashed.rsplit('/').next().unwrap_or_default();
        let mut transformed = path.rfind('/').map_or(String::new(), |slash| path[..=slash].to_owned());
        transformed.push_str(last);
        if !fragment.is_empty() {
            transformed.push_str(if reference.contains("?#") { "?#" } else { "#" });
            transformed.push_str(&fragment);
        }
        let transformed = url::unquote(&transformed);
        let mut out = String::new();
        for piece in &pattern.template {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Url => out.push_str(&transformed),
                Piece::Groups(groups) => {
                    // What did not take part is None, and Python writes it so.
                    out.push_str(
                        groups.iter().find_map(|&group| found.get(group)).map_or("None", |text| text.as_str()),
                    );
                }
            }
        }
        Ok(out)
    }

    /// Whether it is no reference to a static file: another scheme, another host, another path.
    fn is_foreign(&self, reference: &str) -> bool {
        let scheme = reference.bytes().take_while(u8::is_ascii_lowercase).count();
        (scheme > 0 && reference[scheme..].starts_with(':'))
            || (self.settings.ignore_protocol_relative && reference.starts_with("//"))
            || (reference.starts_with('/') && !reference.starts_with(&self.settings.static_url))
    }
}

/// The `_url` of the mixin, without the part of `STATIC_URL`: only what follows the last slash is of use.
fn hashed_url(name: &str, stored: &mut dyn FnMut(&str) -> Result<String, Unresolved>) -> Result<String, Unresolved> {
    let (clean, fragment) = url::defragment(name);
    let mut hashed = if url::split(&clean).path.ends_with('/') { name.to_owned() } else { stored(&clean)? };
    hashed = hashed.replace('\\', "/");
    // `urljoin` resolves a lone dot.
    if hashed == "." {
        hashed.clear();
    }
    if name.contains("?#") {
        hashed.push('?');
    }
    if !fragment.is_empty() {
        hashed.push('#');
        hashed.push_str(&fragment);
    }
    Ok(hashed)
}

fn blocks(ignored: &Regex, text: &str) -> Vec<(usize, usize)> {
    ignored.find_iter(text).map(|found| (found.start(), found.end())).collect()
}

fn is_inside(at: usize, blocks: &[(usize, usize)]) -> bool {
    let before = blocks.partition_point(|&(start, _)| start < at);
    before > 0 && at < blocks[before - 1].1
}
