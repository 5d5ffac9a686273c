//! The patterns of a storage, which are Python's regular expressions, as ours.
//!
//! Only what means the same in both is taken: anything else is refused, and the caller leaves the work to Django.

use std::collections::HashMap;
use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;

/// A compiled pattern of Python's, as `re.Pattern` tells of itself.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct PythonPattern {
    /// Its text.
    pub text: String,
    /// `re.IGNORECASE`.
    pub ignore_case: bool,
    /// `re.DOTALL`.
    pub dot_all: bool,
    /// `re.MULTILINE`.
    pub multi_line: bool,
}

/// One replacement in files of a kind.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct Substitution {
    /// What is looked for; the group `url`, or the second one, is the reference.
    pub pattern: PythonPattern,
    /// What stands there instead, with `%(name)s` for each group, or `%s` for the reference.
    pub template: String,
    /// What is left alone: comments and strings.
    #[serde(default)]
    pub ignored: Option<PythonPattern>,
}

/// A substitution, ready to be made.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) regex: Regex,
    pub(crate) ignored: Option<Regex>,
    pub(crate) template: Vec<Piece>,
    /// Groups that hold the reference: the first that took part counts.
    pub(crate) url: Vec<usize>,
    /// The group that Django returns where nothing is replaced.
    pub(crate) matched: usize,
}

/// A piece of a template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    Url,
    Groups(Vec<usize>),
}

// === impl Substitution ===

impl Substitution {
    /// Compiles it, or says what is not understood.
    pub(crate) fn compile(&self) -> Result<Compiled, String> {
        let (regex, groups) = self.pattern.compile()?;
        let ignored = self.ignored.as_ref().map(PythonPattern::compile).transpose()?.map(|(regex, _)| regex);
        let positional = !groups.contains_key("url");
        if positional && regex.captures_len() != 3 {
            return Err(format!("the pattern {:?} has no group named `url`", self.pattern.text));
        }
        let url = groups.get("url").cloned().unwrap_or_else(|| vec![2]);
        let matched = match groups.get("matched").map(Vec::as_slice) {
            Some([one]) => *one,
            None if positional => 1,
            _ => return Err(format!("the pattern {:?} has no group named `matched`", self.pattern.text)),
        };
        Ok(Compiled { regex, ignored, template: template(&self.template, &groups)?, url, matched })
    }
}

fn template(text: &str, groups: &HashMap<String, Vec<usize>>) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        pieces.push(Piece::Text(rest[..at].to_owned()));
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            pieces.push(Piece::Text(String::from("%")));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('s') {
            pieces.push(Piece::Url);
            rest = after;
        } else {
            let unknown = || format!("the template {text:?} is not understood");
            let (name, after) = rest.strip_prefix('(').and_then(|rest| rest.split_once(")s")).ok_or_else(unknown)?;
            pieces.push(match name {
                "url" => Piece::Url,
                name => Piece::Groups(groups.get(name).cloned().ok_or_else(unknown)?),
            });
            rest = after;
        }
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

// === impl PythonPattern ===

impl PythonPattern {
    fn compile(&self) -> Result<(Regex, HashMap<String, Vec<usize>>), String> {
        let text = expand_back_reference(&self.text)?;
        let mut translation = Translation { out: String::new(), names: HashMap::new(), ignore_case: self.ignore_case };
        translation.run(&text, self.multi_line).map_err(|what| format!("{what} in the pattern {:?}", self.text))?;
        let regex = RegexBuilder::new(&translation.out)
            .case_insensitive(self.ignore_case)
            .dot_matches_new_line(self.dot_all)
            .multi_line(self.multi_line)
            .build()
            .map_err(|error| format!("the pattern {:?}: {error}", self.text))?;
        let mut groups: HashMap<String, Vec<usize>> = HashMap::new();
        for (number, name) in regex.capture_names().enumerate() {
            let Some(name) = name else { continue };
            let name = name.split("__").next().unwrap_or(name);
            groups.entry(name.to_owned()).or_default().push(number);
        }
        Ok((regex, groups))
    }
}

/// `(?P<q>['"]{0,1})B(?P=q)` is `'B'`, `"B"` or `B`, tried in this order: without it the engine stays linear.
fn expand_back_reference(text: &str) -> Result<String, String> {
    let Some((before, after)) = text.split_once("(?P=") else { return Ok(text.to_owned()) };
    let unknown = || format!("a back-reference in the pattern {text:?}");
    let (name, after) = after.split_once(')').ok_or_else(unknown)?;
    let (start, rest) = before.split_once(&format!("(?P<{name}>[")).ok_or_else(unknown)?;
    let (set, between) = rest.split_once("]{0,1})").ok_or_else(unknown)?;
    let simple = set.chars().all(|c| matches!(c, '\'' | '"'));
    let depth = between.chars().try_fold(0i32, |depth, c| match c {
        '\\' => None,
        '(' => Some(depth + 1),
        ')' if depth == 0 => None,
        ')' => Some(depth - 1),
        _ => Some(depth),
    });
    // An escaped letter such as \s holds no bracket; anything harder is not taken.
    let depth = depth.or_else(|| {
        let plain = between.replace("\\s", "");
        (!plain.contains('\\') && plain.matches('(').count() == plain.matches(')').count()).then_some(0)
    });
    if !simple || depth != Some(0) || after.contains("(?P=") {
        return Err(unknown());
    }
    let mut branches: Vec<String> = set.chars().map(|quote| format!("{quote}{between}{quote}")).collect();
    branches.push(between.to_owned());
    Ok(format!("{start}(?:{}){after}", branches.join("|")))
}

/// What Python's `\s` takes and Unicode's White_Space does not.
const SPACE: &str = r"\s\x1c-\x1f";
const WORD: &str = r"\p{L}\p{N}_";

struct Translation {
    out: String,
    names: HashMap<String, u32>,
    ignore_case: bool,
}

impl Translation {
    fn run(&mut self, text: &str, multi_line: bool) -> Result<(), &'static str> {
        let mut chars = text.chars().peekable();
        // Whether case counts outside of each open group.
        let mut scopes: Vec<bool> = Vec::new();
        let mut quantified = false;
        while let Some(c) = chars.next() {
            let mut repeats = false;
            match c {
                '\\' => {
                    let escaped = chars.next().ok_or("a lone backslash")?;
                    let class = class_of(escaped)?;
                    self.out.push_str(&class.map_or_else(|| literal(escaped), |class| format!("[{class}]")));
                }
                '[' => self.set(&mut chars)?,
                '(' => {
                    scopes.push(self.ignore_case);
                    if chars.peek() == Some(&'?') {
                        let closed = self.group(&mut chars)?;
                        if closed {
                            scopes.pop();
                        }
                    } else {
                        self.out.push('(');
                    }
                }
                ')' => {
                    self.ignore_case = scopes.pop().ok_or("an unbalanced bracket")?;
                    self.out.push(')');
                }
                '*' | '+' | '?' | '{' => {
                    if quantified && c == '+' {
                        return Err("a possessive quantifier");
                    }
                    self.out.push(c);
                    if c == '{' {
                        let mut bounds = String::new();
                        while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || *c == ',') {
                            bounds.push(c);
                        }
                        if chars.next() != Some('}') || !bounds.starts_with(|c: char| c.is_ascii_digit()) {
                            return Err("a brace that is no quantifier");
                        }
                        self.out.push_str(&bounds);
                        self.out.push('}');
                    }
                    repeats = true;
                }
                '$' if !multi_line => return Err("`$` without MULTILINE"),
                // Python knows the dotless and the dotted letter of Turkish as cases of this one.
                'i' | 'I' if self.ignore_case => self.out.push_str("[iI\u{130}\u{131}]"),
                c => self.out.push(c),
            }
            quantified = repeats;
        }
        if scopes.is_empty() { Ok(()) } else { Err("an unbalanced bracket") }
    }

    /// What follows `(?`; true where the group is closed already.
    fn group(&mut self, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<bool, &'static str> {
        chars.next();
        let mut head = String::new();
        for c in chars.by_ref() {
            head.push(c);
            if matches!(c, ':' | ')' | '>' | '=' | '!' | '#' | '(') {
                break;
            }
        }
        let is_flags = |text: &str| text.chars().all(|c| matches!(c, 'i' | 's' | 'm' | '-'));
        if let Some(name) = head.strip_prefix("P<").and_then(|head| head.strip_suffix('>')) {
            if name.contains("__") {
                return Err("a group's name");
            }
            let count = self.names.entry(name.to_owned()).or_default();
            *count += 1;
            let suffix = if *count == 1 { String::new() } else { format!("__{count}") };
            let _ = write!(self.out, "(?P<{name}{suffix}>");
            return Ok(false);
        }
        if let Some(flags) = head.strip_suffix(':').filter(|flags| is_flags(flags)) {
            let (on, off) = flags.split_once('-').unwrap_or((flags, ""));
            self.ignore_case = (self.ignore_case || on.contains('i')) && !off.contains('i');
            let _ = write!(self.out, "(?{head}");
            return Ok(false);
        }
        if head.strip_suffix(')').is_some_and(is_flags) {
            // Of the whole pattern, and so told by its flags.
            return Ok(true);
        }
        Err("a construct that is not known")
    }

    fn set(&mut self, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<(), &'static str> {
        self.out.push('[');
        if chars.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        if chars.next_if_eq(&']').is_some() {
            self.out.push_str("\\]");
        }
        loop {
            match chars.next().ok_or("an open set")? {
                ']' => break,
                '\\' => {
                    let escaped = chars.next().ok_or("a lone backslash")?;
                    let class = class_of(escaped)?;
                    if class.as_deref().is_some_and(|class| class.starts_with('^')) {
                        return Err("a negated class in a set");
                    }
                    self.out.push_str(&class.unwrap_or_else(|| literal(escaped)));
                }
                '-' if chars.peek() == Some(&'-') => return Err("two hyphens in a set"),
                c @ ('[' | '&' | '~') => {
                    self.out.push('\\');
                    self.out.push(c);
                }
                c => self.out.push(c),
            }
        }
        self.out.push(']');
        Ok(())
    }
}

/// The set that an escaped letter stands for; `None` where the escaped character is meant itself.
fn class_of(c: char) -> Result<Option<String>, &'static str> {
    Ok(match c {
        's' => Some(SPACE.to_owned()),
        'S' => Some(format!("^{SPACE}")),
        'w' => Some(WORD.to_owned()),
        'W' => Some(format!("^{WORD}")),
        'd' => Some(String::from(r"\d")),
        'D' => Some(String::from(r"^\d")),
        'n' | 'r' | 't' | 'f' | 'v' => None,
        c if c.is_alphanumeric() => return Err("an escape that is not known"),
        _ => None,
    })
}

fn literal(c: char) -> String {
    match c {
        // In our engine these two are the bounds of words.
        '<' | '>' => c.to_string(),
        c if c.is_ascii() => format!("\\{c}"),
        c => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<Regex, String> {
        let pattern = PythonPattern { text: text.to_owned(), ignore_case: true, ..PythonPattern::default() };
        pattern.compile().map(|(regex, _)| regex)
    }

    #[test]
    fn what_means_the_same_in_both_is_taken() {
        for (pattern, text, want) in [
            (r"@import\s*", "@\u{131}mport\x1c", "@\u{131}mport\x1c"),
            (r"(?-i:sourceMappingURL)=", "sourceMappingURL=", "sourceMappingURL="),
            (r"[\s\{]x", "{x", "{x"),
            (r"[.\/]x", "/x", "/x"),
            (r"\<a\>", "<a>", "<a>"),
            (r"[&&a]", "&", "&"),
        ] {
            let found = compile(pattern).unwrap();
            assert_eq!(found.find(text).unwrap().as_str(), want, "{pattern}");
        }
        assert!(!compile("(?-i:sourceMappingURL)=").unwrap().is_match("SourceMappingURL="));
    }

    #[test]
    fn what_does_not_is_refused_and_left_to_django() {
        for pattern in
            [r"a(?=b)", r"(?<!a)b", r"\bx", r"(a)\1", "a$", "a{,3}", "a++", r"\Z", "(?P<q>a+)(?P=q)", "[a--b]"]
        {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_quote_that_must_come_again_is_one_of_three_cases() {
        let text = r#"(?P<matched>url\((?P<quote>['"]{0,1})\s*(?P<url>.*?)(?P=quote)\))"#;
        let pattern = PythonPattern { text: text.to_owned(), ignore_case: true, ..PythonPattern::default() };
        let substitution = Substitution { pattern, template: String::from("url(\"%(url)s\")"), ignored: None };
        let compiled = substitution.compile().unwrap();
        for (text, want) in
            [("url('a)b')", "a)b"), ("url(\"a\")", "a"), ("url( a)", "a"), ("url('a)", "'a"), ("url(\"x')", "\"x'")]
        {
            let found = compiled.regex.captures(text).unwrap();
            let url = compiled.url.iter().find_map(|&group| found.get(group)).unwrap();
            assert_eq!(url.as_str(), want, "{text}");
        }
    }
}
