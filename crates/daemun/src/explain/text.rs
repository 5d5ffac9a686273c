//! What was found out, for a terminal of 80 columns.

use super::report::{EndedBy, Explanation, GatewayTold, Told};
use super::table::Table;
use crate::control::message::ServerStatus;

/// Columns of a line.
const WIDTH: usize = 80;

/// Where values begin.
const MARGIN: usize = 12;

/// How it is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Style {
    /// Whether the terminal shows colours.
    pub colour: bool,
}

/// The lines so far.
struct Page {
    out: String,
    style: Style,
}

impl Page {
    fn heading(&mut self, text: &str) {
        for line in wrapped(text, WIDTH) {
            let (on, off) = if self.style.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            self.out.extend([on, &line, off, "\n"]);
        }
    }

    /// A name and its value.
    fn entry(&mut self, name: &str, value: &str) {
        let mut name = name;
        for line in wrapped(value, WIDTH - MARGIN) {
            let (on, off) = if self.style.colour && !name.is_empty() { ("\x1b[36m", "\x1b[0m") } else { ("", "") };
            let line = format!("  {on}{name:<width$}{off}{line}", width = MARGIN - 2);
            self.out += line.trim_end();
            self.out.push('\n');
            name = "";
        }
    }

    fn item(&mut self, text: &str) {
        let mut mark = "- ";
        for line in wrapped(text, WIDTH - 4) {
            self.out.extend(["  ", mark, &line, "\n"]);
            mark = "  ";
        }
    }

    fn gap(&mut self) {
        self.out.push('\n');
    }
}

/// The way of a request.
pub fn text(told: &Explanation, style: Style) -> String {
    let mut page = Page { out: String::new(), style };
    let asked = &told.request;
    page.heading(&format!("{} {}://{}{} from {}", asked.method, asked.scheme, asked.host, asked.target, asked.client));
    page.gap();
    if let Some(path) = asked.path.as_ref().filter(|path| Some(path.as_str()) != asked.target.split('?').next()) {
        page.entry("path", &format!("{path}  (canonical: what rules see)"));
    }
    match &told.listener {
        Some(listener) => {
            let tls = if listener.tls { ", TLS" } else { "" };
            let role = if listener.role == "clients" { String::new() } else { format!(", {}", listener.role) };
            page.entry("listener", &format!("{}{tls}{role}  ({})", listener.address, listener.origin));
        }
        None => page.entry("listener", "none"),
    }
    if let Some(site) = &told.site {
        page.entry("site", if site == "*" { "any host" } else { site });
    }
    match &told.route {
        Some(route) => {
            let last = if told.ended_by == EndedBy::Router { "asked last, and declined: " } else { "" };
            page.entry("route", &format!("{last}{}  ({})", route.path, route.origin));
            if !route.conditions.is_empty() {
                page.entry("", &route.conditions);
            }
        }
        None => page.entry("route", "none"),
    }
    let mut name = "filters";
    for filter in &told.filters {
        let ended = if filter.ended { "ENDS IT: " } else { "" };
        page.entry(name, &format!("{ended}{}: {}  ({})", filter.name, filter.text, filter.origin));
        name = "";
    }
    if let Some(handler) = told.handler {
        let reached = if told.ended_by == EndedBy::Filter { "  (not asked)" } else { "" };
        page.entry("handler", &format!("{handler}{reached}"));
    }
    if let Some(target) = &told.target {
        show_target(&mut page, target);
    }
    show_answer(&mut page, told);
    if !told.others.is_empty() {
        page.gap();
        page.heading("Other routes, in the order in which they are asked");
        for other in &told.others {
            let host = if other.route.host == "*" { "" } else { &other.route.host };
            page.item(&format!("{host}{}  {}  ({})", other.route.path, other.why, other.route.origin));
        }
    }
    show_unknown(&mut page, &told.unknown);
    page.out
}

fn show_target(page: &mut Page, target: &Told) {
    match target {
        Told::File(trace) => {
            match &trace.path {
                Some(path) => {
                    page.entry("file", path);
                    if let Some(name) = &trace.application {
                        page.entry("", &format!("of the application {name}"));
                    }
                    if let Some(place) = &trace.setting {
                        page.entry("", &format!("of {place}"));
                    }
                    if let Some(source) = &trace.source {
                        page.entry("", &format!("collected from {source}"));
                    }
                }
                None => page.entry("file", "none"),
            }
            for place in trace.looked_at.iter().filter(|place| Some(&place.path) != trace.path.as_ref()) {
                page.entry("", &format!("looked at {}: {}", place.path, place.found));
            }
            if let Some(near) = &trace.nearest {
                page.entry("", &format!("nearest is {near}"));
            }
            let mut name = "why";
            for reason in &trace.reasons {
                page.entry(name, reason);
                name = "";
            }
        }
        Told::Application(app) => {
            let callable = app.callable.as_deref().unwrap_or("nothing is mounted there (404)");
            page.entry("app", &format!("{}: {callable}", app.name));
            page.entry("", &format!("SCRIPT_NAME={:?} PATH_INFO={:?}", app.script_name, app.path_info));
            page.entry("python", &format!("{}  ({})", app.python.display(), app.python_reason));
            page.entry("folder", &app.directory.display().to_string());
        }
        Told::Upstream(upstream) => {
            page.entry("upstream", &format!("{}: {}", upstream.name, upstream.balance));
            if let Some(cookie) = &upstream.sticky {
                page.entry("", &format!("a client stays with its server by the cookie {cookie}"));
            }
            let health = upstream.health.as_deref().unwrap_or("by the answers that requests get");
            page.entry("health", health);
            let mut name = "servers";
            for server in &upstream.servers {
                page.entry(name, server);
                name = "";
            }
            if let Some(seen) = &upstream.seen {
                let mut name = "last known";
                for server in &seen.servers {
                    page.entry(name, &how(server));
                    name = "";
                }
                page.entry("", &format!("(so says the server that is running, pid {})", seen.pid));
            }
            page.entry("path", &format!("{:?}, taken off it {:?}", upstream.path, upstream.script_name));
            if let Some(gateway) = &upstream.gateway {
                show_gateway(page, gateway);
            }
        }
        Told::Program(program) => {
            page.entry("program", &program.script);
            page.entry("", &format!("SCRIPT_NAME={:?} PATH_INFO={:?}", program.script_name, program.path_info));
            let mut name = "run as";
            for line in &program.lines {
                page.entry(name, line);
                name = "";
            }
        }
        Told::NoProgram { root } => page.entry("program", &format!("none of this name below {}", root.display())),
        Told::Redirect { to, .. } => page.entry("to", to),
        Told::Respond { length, .. } => page.entry("body", &format!("{length} bytes")),
    }
}

fn show_gateway(page: &mut Page, gateway: &GatewayTold) {
    if let Some(script) = &gateway.script {
        page.entry("script", script);
    }
    let mut name = "told";
    for (variable, value) in &gateway.variables {
        page.entry(name, &format!("{variable}={value}"));
        name = "";
    }
}

/// How a server was when it was last heard of.
fn how(server: &ServerStatus) -> String {
    let ServerStatus { url, state, age, requests, failures, .. } = server;
    match age {
        Some(age) => format!("{url} {state}, heard of {age:.1} s ago; {requests} requests, {failures} failed"),
        None => format!("{url} {state}, not heard of yet"),
    }
}

fn show_answer(page: &mut Page, told: &Explanation) {
    let answer = &told.answer;
    match answer.status {
        Some(status) => {
            let by = match told.ended_by {
                EndedBy::Server => "  (before any route)",
                EndedBy::Router => "  (by the router)",
                EndedBy::Filter => "  (by a filter)",
                EndedBy::Handler => "",
            };
            page.entry("answer", &format!("{status} {}{by}", answer.reason.unwrap_or_default()));
        }
        None => page.entry("answer", "what the program says"),
    }
    for (name, value) in &answer.headers {
        page.entry("", &format!("{name}: {value}"));
    }
    if let Some(message) = &answer.message {
        page.entry("because", message);
    }
}

fn show_unknown(page: &mut Page, unknown: &[String]) {
    if !unknown.is_empty() {
        page.gap();
        page.heading("Cannot be known");
        for line in unknown {
            page.item(line);
        }
    }
}

/// All routes.
pub fn table(table: &Table, style: Style) -> String {
    let mut page = Page { out: String::new(), style };
    let listeners = table.listeners.join(", ");
    page.entry("listeners", if listeners.is_empty() { "none" } else { &listeners });
    let mut host = None;
    for told in &table.routes {
        if host != Some(&told.route.host) {
            host = Some(&told.route.host);
            page.gap();
            page.heading(if told.route.host == "*" { "any host" } else { &told.route.host });
        }
        let conditions = match told.route.conditions.as_str() {
            "" => String::new(),
            conditions => format!(" [{conditions}]"),
        };
        page.item(&format!(
            "{}{conditions}  {} {}  ({})",
            told.route.path, told.handler, told.target, told.route.origin
        ));
        for filter in &told.filters {
            page.entry("", &format!("{}: {}  ({})", filter.name, filter.text, filter.origin));
        }
        for shadow in &told.shadowed {
            page.entry("", &format!("SHADOWED on {shadow} answers first"));
        }
    }
    show_unknown(&mut page, &table.unknown);
    page.out
}

/// Lines of at most `width` columns, broken at spaces, else after a slash, else anywhere.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut columns = 0;
    for word in text.split_inclusive([' ', '/']) {
        let length = word.trim_end().chars().count();
        if columns > 0 && columns + length > width {
            lines.push(line.trim_end().to_owned());
            line.clear();
            columns = 0;
        }
        for c in word.chars() {
            if columns == width {
                if c == ' ' {
                    continue;
                }
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                columns = 0;
            }
            line.push(c);
            columns += 1;
        }
    }
    if !line.trim_end().is_empty() || lines.is_empty() {
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_slashes_and_lose_nothing() {
        let text = "a /very/long/path/that/goes/on and words";
        for width in [5, 8, 12, 80] {
            let lines = wrapped(text, width);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:?}");
            let bare = |text: &str| text.replace(' ', "");
            assert_eq!(bare(&lines.concat()), bare(text), "{width}");
        }
        assert_eq!(wrapped("", 10), [""]);
    }
}
