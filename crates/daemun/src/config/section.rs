//! Tables and values of configuration files with their places: every read checks, and a fault never ends the reading.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::environment::{Environment, join};
use super::fault::{Place, Report};
use super::suggest::did_you_mean;
use super::{units, variables};

/// The keys that a table may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    /// Those that are read.
    pub(super) known: &'static [&'static str],
    /// Those that a coming version will read.
    pub(super) later: &'static [&'static str],
}

/// Where a value comes from and what surrounds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) document: &'a Document,
    pub(super) environment: &'a Environment,
    pub(super) report: &'a Report,
}

/// A table; `[server]` may stand in several files, which then make one.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// For messages, for instance `[server]`; empty for a whole file.
    title: String,
    parts: Vec<(Source<'a>, &'a DeTable<'a>)>,
    place: Place,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) source: Source<'a>,
    /// For messages, for instance `` `listen` in [server] ``.
    label: String,
    key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

// === impl Section ===

impl<'a> Section<'a> {
    /// A whole file. A key that belongs into one of the tables of `homes` is sent there.
    pub(super) fn file(source: Source<'a>, table: &'a DeTable<'a>, keys: Keys, homes: &[(&str, Keys)]) -> Self {
        let section = Self::unchecked(source, table);
        section.check_with(keys, homes);
        section
    }

    /// A whole file whose keys were checked before.
    pub(super) fn unchecked(source: Source<'a>, table: &'a DeTable<'a>) -> Self {
        Self { title: String::new(), parts: vec![(source, table)], place: source.document.place(0) }
    }

    /// One table out of those that stand under one name in several files; `None` where there are none.
    pub(super) fn merged(title: &str, entries: &[Entry<'a>], keys: Keys) -> Option<Self> {
        let parts: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some((entry.source, entry.as_table(&format!("a table under a line {title}"))?)))
            .collect();
        let section = Self { title: title.to_owned(), place: entries.first()?.place(), parts };
        section.check(keys);
        Some(section)
    }

    /// Where it begins.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    /// The value of this key.
    pub(super) fn entry(&self, key: &str) -> Option<Entry<'a>> {
        self.entries().find(|entry| entry.key == key)
    }

    /// All values.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'a>> {
        let inside = if self.title.is_empty() { String::new() } else { format!(" in {}", self.title) };
        self.parts.iter().flat_map(move |&(source, table)| {
            let inside = inside.clone();
            table.iter().map(move |(key, value)| Entry {
                source,
                label: format!("`{}`{inside}", key.get_ref()),
                key: key.get_ref(),
                value,
            })
        })
    }

    /// Tells what is wrong with the section as a whole.
    pub(super) fn fault(&self, message: impl Into<String>) {
        if let Some((source, _)) = self.parts.first() {
            source.report.fault(self.place(), message);
        }
    }

    fn check(&self, keys: Keys) {
        self.check_with(keys, &[]);
    }

    fn check_with(&self, keys: Keys, homes: &[(&str, Keys)]) {
        let mut seen: HashMap<&str, Place> = HashMap::new();
        for &(source, table) in &self.parts {
            for (key, value) in table {
                let (name, place) = (key.get_ref().as_ref(), source.document.place(key.span().start));
                if keys.known.contains(&name) {
                    if let Some(first) = seen.insert(name, place.clone()) {
                        let message = format!("`{name}` in {} stands already at {first}", self.title);
                        source.report.fault(place, message);
                    }
                } else if keys.later.contains(&name) {
                    let message = format!("{} is not supported by this version", self.named(name, value.get_ref()));
                    source.report.fault(place, message);
                } else if let Some((home, _)) = homes.iter().find(|(_, keys)| keys.known.contains(&name)) {
                    source
                        .report
                        .fault(place, format!("`{name}` stands outside of every table; it belongs under {home}"));
                } else {
                    source.report.fault(place, self.unknown(name, keys));
                }
            }
        }
    }

    fn unknown(&self, name: &str, keys: Keys) -> String {
        let inside = if self.title.is_empty() { String::new() } else { format!(" in {}", self.title) };
        let near = did_you_mean(name, keys.known);
        let near = if near.is_empty() { did_you_mean(name, keys.later) } else { near };
        if !near.is_empty() || keys.known.is_empty() {
            return format!("unknown key `{name}`{inside}{near}");
        }
        let known: Vec<String> = keys.known.iter().map(|key| format!("`{key}`")).collect();
        format!("unknown key `{name}`{inside}; expected {}", list(&known))
    }

    fn named(&self, name: &str, value: &DeValue<'_>) -> String {
        match value {
            DeValue::Array(_) if self.title.is_empty() => format!("`[[{name}]]`"),
            DeValue::Table(_) if self.title.is_empty() => format!("`[{name}]`"),
            _ if self.title.is_empty() => format!("`{name}`"),
            _ => format!("`{name}` in {}", self.title),
        }
    }
}

// === impl Entry ===

impl<'a> Entry<'a> {
    /// Its key.
    pub(super) fn key(&self) -> &'a str {
        self.key
    }

    /// Where its value stands.
    pub(super) fn place(&self) -> Place {
        self.source.document.place(self.value.span().start)
    }

    /// Tells what is wrong with it.
    pub(super) fn fault(&self, message: impl AsRef<str>) {
        self.source.report.fault(self.place(), format!("{}: {}", self.label, message.as_ref()));
    }

    /// Tells what was expected instead of it.
    pub(super) fn expected(&self, what: &str) {
        let found = match self.value.get_ref() {
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(value) => format!("{value}"),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(items) if items.is_empty() => "an empty list".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(table) if table.is_empty() => "an empty table".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.fault(format!("expected {what}, found {found}"));
    }

    pub(super) fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(super) fn is_list(&self) -> bool {
        self.value.get_ref().is_array()
    }

    pub(super) fn is_integer(&self) -> bool {
        self.value.get_ref().is_integer()
    }

    /// A string, its variables replaced.
    pub(super) fn text(&self) -> Option<String> {
        self.text_as("a string")
    }

    fn text_as(&self, what: &str) -> Option<String> {
        let Some(text) = self.value.get_ref().as_str() else {
            self.expected(what);
            return None;
        };
        match variables::substitute(text, self.source.environment) {
            Ok(text) if text.contains('\0') => {
                self.fault("a NUL cannot stand here");
                None
            }
            Ok(text) => Some(text),
            Err(message) => {
                self.fault(message);
                None
            }
        }
    }

    /// A string that `read` understands.
    pub(super) fn parse<T>(&self, what: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text_as(what)?;
        read(&text).map_err(|message| self.fault(message)).ok()
    }

    /// A string that is not empty.
    pub(super) fn name(&self) -> Option<String> {
        let text = self.text()?;
        if text.is_empty() {
            self.expected("a name");
            return None;
        }
        Some(text)
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let value = self.value.get_ref().as_bool();
        if value.is_none() {
            self.expected("`true` or `false`");
        }
        value
    }

    /// A whole number within bounds; also as a string, since variables stand only in strings.
    pub(super) fn whole(&self, least: u64, most: u64) -> Option<u64> {
        let what = format!("a number {}", units::bounds(least, most));
        match self.value.get_ref() {
            DeValue::Integer(number) => {
                let number = u64::from_str_radix(number.as_str(), number.radix()).ok();
                let number = number.filter(|number| (least..=most).contains(number));
                if number.is_none() {
                    self.expected(&what);
                }
                number
            }
            DeValue::String(text) if text.contains("${") => self.parse(&what, |text| units::whole(text, least, most)),
            _ => {
                self.expected(&what);
                None
            }
        }
    }

    /// A part of all: from 0 to 1.
    pub(super) fn part(&self) -> Option<f64> {
        const WHAT: &str = "a number from 0 to 1, such as 0.1";
        let number = match self.value.get_ref() {
            DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::String(text) if text.contains("${") => {
                return self.parse(WHAT, |text| {
                    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
                    number.ok_or_else(|| format!("expected {WHAT}, found {text:?}"))
                });
            }
            _ => None,
        };
        let number = number.filter(|number| (0.0..=1.0).contains(number));
        if number.is_none() {
            self.expected(WHAT);
        }
        number
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        self.parse(&self.duration_wish(), units::duration)
    }

    pub(super) fn positive_duration(&self) -> Option<Duration> {
        self.parse(&self.duration_wish(), units::positive_duration)
    }

    /// A bare number is meant in seconds nearly always: the example is what to write then.
    fn duration_wish(&self) -> String {
        match self.value.get_ref() {
            DeValue::Integer(number) => format!("a duration such as \"{number}s\""),
            _ => String::from("a duration such as \"30s\""),
        }
    }

    /// A number of bytes, or a string with a unit.
    pub(super) fn size(&self) -> Option<u64> {
        match self.value.get_ref() {
            DeValue::Integer(_) => self.whole(0, i64::MAX as u64),
            _ => self.parse("a size such as \"10MiB\", or a number of bytes", units::size),
        }
    }

    /// A path, relative to the file that it stands in.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let text = self.text_as("a path")?;
        if text.is_empty() {
            self.expected("a path");
            return None;
        }
        Some(join(&self.source.document.folder, text))
    }

    /// A list.
    pub(super) fn items(&self, what: &str) -> Option<Vec<Entry<'a>>> {
        let Some(items) = self.value.get_ref().as_array() else {
            self.expected(what);
            return None;
        };
        let entry = |value| Entry { source: self.source, label: self.label.clone(), key: self.key, value };
        Some(items.iter().map(entry).collect())
    }

    /// A list of strings; those that are not are told and left out.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        Some(self.items("a list of strings")?.iter().filter_map(Entry::text).collect())
    }

    /// A table with these keys; `what` says how it looks.
    pub(super) fn section(&self, title: &str, what: &str, keys: Keys) -> Option<Section<'a>> {
        let table = self.as_table(what)?;
        let section = Section { title: title.to_owned(), parts: vec![(self.source, table)], place: self.place() };
        section.check(keys);
        Some(section)
    }

    /// A table with keys that the user chooses.
    pub(super) fn map(&self, title: &str, what: &str) -> Option<Vec<Entry<'a>>> {
        let table = self.as_table(what)?;
        let section = Section { title: title.to_owned(), parts: vec![(self.source, table)], place: self.place() };
        Some(section.entries().collect())
    }

    fn as_table(&self, what: &str) -> Option<&'a DeTable<'a>> {
        let table = self.value.get_ref().as_table();
        if table.is_none() {
            self.expected(what);
        }
        table
    }
}

/// `a, b or c`.
pub(super) fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
