//! `headers`.

use super::super::section::{Entry, Keys, Section};
use crate::filter::{CorsSettings, HeaderSettings};
use crate::http::Fields;

pub(super) const HEADERS: Keys = Keys { known: &["set", "add", "remove", "security", "cors", "request"], later: &[] };
const CORS: Keys = Keys { known: &["origins", "methods", "headers", "expose", "credentials", "max_age"], later: &[] };
const REQUEST: Keys = Keys { known: &["set", "remove"], later: &[] };

/// Browsers keep a preflight for two hours at most.
const MAX_AGE: u64 = 7200;

/// The fields that say where a message ends and how the connection goes on: only the server knows.
const FRAMING: [&str; 6] = ["content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "date"];

/// `{ set = {…}, add = {…}, remove = […], security = true, cors = {…}, request = {…} }`.
pub(super) fn read(entry: &Entry<'_>) -> Option<HeaderSettings> {
    const WHAT: &str = "a table such as { set = { \"X-Name\" = \"value\" }, remove = [\"Server\"] }";
    let section = entry.section("`headers`", WHAT, HEADERS)?;
    let request = section
        .entry("request")
        .map_or(Some(None), |entry| entry.section("`request`", "a table with `set` and `remove`", REQUEST).map(Some))?;
    let (request_set, request_remove) = match &request {
        Some(request) => (fields(request, "set")?, names(request, "remove")?),
        None => (Vec::new(), Vec::new()),
    };
    Some(HeaderSettings {
        set: fields(&section, "set")?,
        add: fields(&section, "add")?,
        remove: names(&section, "remove")?,
        security: section.entry("security").map_or(Some(false), |entry| entry.boolean())?,
        cors: match section.entry("cors") {
            Some(entry) if entry.is_table() || entry.boolean()? => Some(cors(&entry)?),
            _ => None,
        },
        request_set,
        request_remove,
    })
}

fn fields(section: &Section<'_>, key: &str) -> Option<Vec<(String, String)>> {
    let Some(entry) = section.entry(key) else { return Some(Vec::new()) };
    let mut fields = Vec::new();
    for item in entry.map(&format!("`{key}`"), "a table such as { \"X-Name\" = \"value\" }")? {
        let name = item.key();
        let value = item.text()?;
        if FRAMING.contains(&name.to_ascii_lowercase().as_str()) {
            item.fault("only the server itself knows what it has to be");
            return None;
        }
        if !Fields::new().try_push(name.to_owned().into(), value.clone().into()) {
            item.fault("expected a name of letters, digits and `-`, and a value without control characters");
            return None;
        }
        fields.push((name.to_owned(), value));
    }
    Some(fields)
}

fn names(section: &Section<'_>, key: &str) -> Option<Vec<String>> {
    section.entry(key).map_or(Some(Vec::new()), |entry| entry.texts())
}

/// `true` for anybody, or a table.
fn cors(entry: &Entry<'_>) -> Option<CorsSettings> {
    const WHAT: &str = "`true`, or a table such as { origins = [\"https://app.example.com\"] }";
    if !entry.is_table() {
        return Some(CorsSettings { max_age: MAX_AGE, ..CorsSettings::default() });
    }
    let section = entry.section("`cors`", WHAT, CORS)?;
    let any = |list: Vec<String>| if list.iter().any(|text| text == "*") { Vec::new() } else { list };
    let origins = section.entry("origins");
    let cors = CorsSettings {
        origins: origins.as_ref().map_or(Some(Vec::new()), self::origins).map(any)?,
        methods: any(names(&section, "methods")?),
        headers: any(names(&section, "headers")?),
        expose: names(&section, "expose")?,
        credentials: section.entry("credentials").map_or(Some(false), |entry| entry.boolean())?,
        max_age: section.entry("max_age").map_or(Some(MAX_AGE), |entry| entry.duration().map(|age| age.as_secs()))?,
    };
    if cors.credentials && cors.origins.is_empty() {
        entry.fault("`credentials` for any origin would give every site the user's session: name the `origins`");
        return None;
    }
    Some(cors)
}

fn origins(entry: &Entry<'_>) -> Option<Vec<String>> {
    const WHAT: &str = "an origin such as \"https://app.example.com\", without a path";
    let mut origins = Vec::new();
    for item in entry.items("a list of origins such as [\"https://app.example.com\"]")? {
        origins.push(item.parse(WHAT, |text| {
            let host = text.split_once("://").map(|(_, host)| host);
            let valid = text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '"']));
            if valid { Ok(text.to_owned()) } else { Err(format!("expected {WHAT}, found {text:?}")) }
        })?);
    }
    Some(origins)
}
