//! What a `daemun.toml` may hold, as JSON Schema: editors complete keys, tell what they mean, and underline wrong ones.
//!
//! Keys are those that the sections of this room read, and what is said of them stands in the manual, which the program
//! carries. Of values only their kind is said where a table is meant: whether one is right `daemun check` tells, with the
//! nearest that is.

use serde_json::{Map, Value, json};

use super::section::Keys;
use super::{app, cgi, filters, gather, route, server, site, static_route, tls, upstream};

/// The page of the manual that names every key.
const PAGE: &str = include_str!("../../../../docs/manual/daemun-toml.md");

/// The page of the filters.
const FILTERS: &str = include_str!("../../../../docs/manual/filters.md");

/// The schema of the whole file.
pub fn schema() -> Value {
    let route = of_route("## [[route]]", route::KEYS);
    let mut site = of_route("## [[site]]", site::KEYS);
    site["properties"]["route"] = list(&route);
    let named = |what: &str, heading: &str, keys: Keys| {
        let one = described(heading, keys);
        json!({ "type": "object", "description": what, "additionalProperties": one })
    };
    let mut file = object(gather::FILE, |_| None);
    let properties = &mut file["properties"];
    properties["include"] = json!({ "type": "array", "items": { "type": "string" }, "description": "other files, such as \"sites/*.toml\"" });
    properties["server"] = described("## [server]", server::KEYS);
    properties["tls"] = list(&described("## [[tls]]", tls::KEYS));
    properties["app"] = named("one pool of worker processes each", "## [app.NAME]", app::KEYS);
    properties["upstream"] = named("application servers over the network", "## [upstream.NAME]", upstream::KEYS);
    properties["route"] = list(&route);
    properties["site"] = list(&site);
    file["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    file["title"] = json!("daemun.toml");
    file
}

/// A route, or a site: its handlers and filters are tables of their own.
fn of_route(heading: &str, keys: Keys) -> Value {
    let mut table = object(keys, |key| said(section(PAGE, heading), key).or_else(|| said(FILTERS, key)));
    let inner = filters::KEYS.iter().copied().chain([("cgi", cgi::KEYS), ("static", static_route::KEYS)]);
    for (name, keys) in inner {
        if let Some(place) = table["properties"].get_mut(name) {
            let heading = format!("### {name}");
            let mut value = object(keys, |key| said(section(PAGE, &heading), key));
            // Many have a short form: `compress = true`.
            value.as_object_mut().map(|value| value.remove("type"));
            if let (Some(value), Some(text)) = (value.as_object_mut(), place.get("description")) {
                value.insert("description".to_owned(), text.clone());
            }
            *place = value;
        }
    }
    table
}

fn described(heading: &str, keys: Keys) -> Value {
    object(keys, |key| said(section(PAGE, heading), key))
}

/// A table that has these keys and no other.
fn object(keys: Keys, text: impl Fn(&str) -> Option<String>) -> Value {
    let property = |key: &&str| {
        let told = text(key).map_or_else(|| json!({}), |text| json!({ "description": text }));
        ((*key).to_owned(), told)
    };
    let properties: Map<String, Value> = keys.known.iter().map(property).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn list(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// What stands below a heading, up to the next one that is as high.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let Some(start) = page.find(&format!("\n{heading}\n")) else { return "" };
    let rest = &page[start + 1 + heading.len()..];
    let level = heading.split(' ').next().unwrap_or_default();
    let end = rest.find(&format!("\n{level} ")).unwrap_or(rest.len());
    &rest[..end]
}

/// What a table of the manual says of a key: its default, and the last column.
fn said(text: &str, key: &str) -> Option<String> {
    let name = format!("`{key}`");
    let row = text.lines().find(|line| {
        let first = line.strip_prefix("| ").and_then(|line| line.split(" | ").next()).unwrap_or_default();
        first.split(", ").any(|one| one == name)
    })?;
    // A column that says nothing has a single space, which it shares with its neighbours' bars.
    let row = row.trim_matches('|').replace(" | ", " \u{1f} ").replace("| ", " \u{1f} ");
    let cells: Vec<&str> = row.split('\u{1f}').map(str::trim).collect();
    let what = plain(cells.last()?);
    let default = cells.get(1).filter(|_| cells.len() > 2).map(|cell| plain(cell)).unwrap_or_default();
    Some(if default.is_empty() { what } else { format!("{what} (default: {default})") })
}

/// Without marks and targets of links.
fn plain(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    let mut rest = cell;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(&before.replacen('[', "", usize::from(!before.ends_with('`'))));
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_there_and_the_manual_says_what_it_means() {
        let schema = schema();
        let app = &schema["properties"]["app"]["additionalProperties"];
        for (table, keys) in [
            (&schema["properties"]["server"], server::KEYS),
            (app, app::KEYS),
            (&schema["properties"]["upstream"]["additionalProperties"], upstream::KEYS),
            (&schema["properties"]["tls"]["items"], tls::KEYS),
            (&schema["properties"]["route"]["items"]["properties"]["static"], static_route::KEYS),
            (&schema["properties"]["route"]["items"]["properties"]["cgi"], cgi::KEYS),
        ] {
            for key in keys.known {
                let text = table["properties"][key]["description"].as_str().unwrap_or_default();
                let is_plain = !text.starts_with('|') && !text.contains("](") && !text.contains('`');
                assert!(text.len() > 3 && is_plain, "{key}: {text:?}");
            }
            assert_eq!(table["additionalProperties"], false);
        }
        assert_eq!(app["properties"]["threads"]["description"], "in each process (default: 4)");
    }

    #[test]
    fn filters_have_their_keys_and_short_forms() {
        let compress = &schema()["properties"]["route"]["items"]["properties"]["compress"];
        assert!(compress["properties"].get("level").is_some() && compress.get("type").is_none());
        assert!(compress["description"].as_str().is_some_and(|text| text.starts_with("true, or")));
    }
}
