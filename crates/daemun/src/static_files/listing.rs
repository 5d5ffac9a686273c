//! What is in a folder, as a page, as JSON in the shape of nginx's `autoindex_format json`, or as text.

use std::cmp::Ordering;
use std::fmt::Write;

use bytes::Bytes;
use rustix::io::Errno;

use super::answer;
use super::tree::{ByName, Listed, Listing, Tree};
use crate::http::{Request, Response, Status, date};
use crate::respond::page::{self, Kind, escape};
use crate::telemetry::rfc3339;

/// Entries that are told, the first by name: a page of them has some 2 MB. Of the others nothing but the name is read.
const MOST: usize = 10_000;

/// Reads a folder; `None` where there is none of that name.
pub(super) fn read(tree: &Tree, name: &[u8], is_hidden: impl Fn(&[u8]) -> bool) -> Result<Option<Listing>, Errno> {
    tree.list(name, MOST, is_hidden)
}

/// What the list is sorted by; folders always come first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Order {
    by: By,
    descending: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum By {
    Name,
    Size,
    Time,
}

// === impl Listing ===

impl Listing {
    /// The answer to a request for the folder.
    pub(super) fn answer(mut self, request: &Request) -> Response {
        let order = Order::of(request.head.query().unwrap_or_default());
        self.entries.sort_by(|one, other| order.compare(one, other));
        let kind = Kind::preferred(&request.head);
        let body = match kind {
            Kind::Html => self.html(request, order),
            Kind::Json => self.json(),
            Kind::Text => self.text(),
        };
        let mut response = page::page(Status::OK, kind, body, Some(&request.head));
        for (name, value) in [("Cache-Control", "no-cache"), ("Vary", "Accept")] {
            response.fields.push(Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()));
        }
        response
    }

    fn html(&self, request: &Request, order: Order) -> String {
        let path = String::from_utf8_lossy(request.path.as_bytes());
        let mut main = format!("<main><h1><small>Files in</small>{}</h1>\n<table><thead><tr>", escape(&path));
        for (by, label, class) in
            [(By::Name, "Name", ""), (By::Size, "Size", " class=\"n\""), (By::Time, "Changed", " class=\"n\"")]
        {
            let is_this = order.by == by;
            let descending = is_this && !order.descending;
            let aria = match (is_this, order.descending) {
                (false, _) => "",
                (true, false) => " aria-sort=\"ascending\"",
                (true, true) => " aria-sort=\"descending\"",
            };
            let (by, direction) = (by.name(), if descending { "desc" } else { "asc" });
            // Writing into a string cannot fail, here and below.
            let _ = write!(
                main,
                "<th scope=\"col\"{class}{aria}><a href=\"?sort={by}&amp;order={direction}\">{label}</a></th>"
            );
        }
        main.push_str("</tr></thead>\n<tbody>\n");
        if request.path.as_bytes().len() > request.prefix_length.max(1) {
            main.push_str("<tr><td><a href=\"../\">../</a></td><td class=\"n\"></td><td class=\"n\"></td></tr>\n");
        }
        for entry in &self.entries {
            let slash = if entry.size.is_none() { "/" } else { "" };
            // `./` keeps a name such as `javascript:x` from being read as a scheme (RFC 3986, section 4.2).
            let mut href = b"./".to_vec();
            answer::encode(&entry.name, b":@", &mut href);
            let (href, name) = (escape(&String::from_utf8_lossy(&href)), escape(&entry.text()));
            let size = entry.size.map(human).unwrap_or_default();
            let (moment, shown) = entry.moment();
            let _ = writeln!(
                main,
                "<tr><td><a href=\"{href}{slash}\">{name}{slash}</a></td><td class=\"n\">{size}</td>\
                 <td class=\"n\"><time datetime=\"{moment}\">{shown}</time></td></tr>"
            );
        }
        main.push_str("</tbody></table>\n");
        if self.entries.is_empty() {
            main.push_str("<p class=\"soft\">This folder is empty.</p>");
        }
        if self.has_more {
            let _ = write!(main, "<p class=\"soft\">These are the first {MOST} by name; there are more.</p>");
        }
        main.push_str("</main>");
        page::html(&format!("Files in {path}"), &main)
    }

    fn json(&self) -> String {
        let entries = self.entries.iter().map(|entry| {
            let changed = String::from_utf8_lossy(&date::format(entry.modified)).into_owned();
            match entry.size {
                None => serde_json::json!({ "name": entry.text(), "type": "directory", "mtime": changed }),
                Some(size) => {
                    serde_json::json!({ "name": entry.text(), "type": "file", "mtime": changed, "size": size })
                }
            }
        });
        let mut entries: Vec<_> = entries.collect();
        if self.has_more {
            entries.push(serde_json::json!({ "name": "", "type": "other", "truncated": true }));
        }
        format!("{}\n", serde_json::Value::Array(entries))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for entry in &self.entries {
            let slash = if entry.size.is_none() { "/" } else { "" };
            let name: String = entry.text().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            let _ = writeln!(text, "{name}{slash}");
        }
        if self.has_more {
            let _ = writeln!(text, "(the first {MOST} by name; there are more)");
        }
        text
    }
}

// === impl Listed ===

impl Listed {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.name)
    }

    /// When it was changed, for machines, and the day and minute of it for people; UTC.
    fn moment(&self) -> (String, String) {
        let moment = rfc3339(self.modified);
        let shown = format!("{} {}", moment.get(..10).unwrap_or_default(), moment.get(11..16).unwrap_or_default());
        (moment, shown)
    }
}

// === impl Order ===

impl Order {
    /// What the query wishes, as `sort=name|size|time&order=asc|desc`.
    fn of(query: &[u8]) -> Self {
        let mut order = Self { by: By::Name, descending: false };
        for pair in query.split(|&byte| byte == b'&') {
            match pair {
                b"sort=name" => order.by = By::Name,
                b"sort=size" => order.by = By::Size,
                b"sort=time" => order.by = By::Time,
                b"order=asc" => order.descending = false,
                b"order=desc" => order.descending = true,
                _ => {}
            }
        }
        order
    }

    fn compare(self, one: &Listed, other: &Listed) -> Ordering {
        let by_name = || ByName(&one.name).cmp(&ByName(&other.name));
        let wished = match self.by {
            By::Name => by_name(),
            By::Size => one.size.cmp(&other.size),
            By::Time => one.modified.cmp(&other.modified),
        };
        let wished = if self.descending { wished.reverse() } else { wished };
        one.size.is_some().cmp(&other.size.is_some()).then(wished).then_with(by_name)
    }
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Size => "size",
            Self::Time => "time",
        }
    }
}

/// A size with at most one digit after the point.
fn human(size: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let mut unit = 0;
    let mut tenths = u128::from(size) * 10 / 1024;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_as_people_write_them() {
        for (size, want) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1_048_576, "1.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(human(size), want);
        }
    }
}
