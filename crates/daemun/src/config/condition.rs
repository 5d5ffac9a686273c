//! `method` and `header`: what a route asks for beside host and path.

use super::section::{Entry, Section};
use crate::router::{Conditions, HeaderCondition, Wanted};

/// Reads the conditions of a table.
pub(super) fn read(section: &Section<'_>) -> Option<Conditions> {
    let methods = section.entry("method").map_or(Some(Vec::new()), |entry| methods(&entry));
    let headers = section.entry("header").map_or(Some(Vec::new()), |entry| headers(&entry));
    Some(Conditions { methods: methods?, headers: headers? })
}

fn methods(entry: &Entry<'_>) -> Option<Vec<String>> {
    const WHAT: &str = "a method such as \"GET\", or a list of them";
    let items = if entry.is_list() { entry.items(WHAT)? } else { vec![entry.clone()] };
    if items.is_empty() {
        entry.expected(WHAT);
        return None;
    }
    let mut methods: Vec<String> = Vec::new();
    for item in &items {
        let method = item.parse(WHAT, |text| {
            let upper = text.to_ascii_uppercase();
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-') {
                Err(format!("expected {WHAT}, found {text:?}"))
            } else if text == upper {
                Ok(upper)
            } else {
                Err(format!("methods are written in capitals: {upper:?}"))
            }
        })?;
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    Some(methods)
}

fn headers(entry: &Entry<'_>) -> Option<Vec<HeaderCondition>> {
    const WHAT: &str = "a table such as { \"X-Version\" = \"2*\", Cookie = true }";
    let mut conditions: Vec<HeaderCondition> = Vec::new();
    for item in entry.map("`header`", WHAT)? {
        let name = item.key();
        let condition = if item.is_text() {
            item.parse("a value", |text| HeaderCondition::new(name, text))?
        } else {
            let wanted = if item.boolean()? { Wanted::Present } else { Wanted::Absent };
            HeaderCondition { name: name.to_ascii_lowercase(), wanted }
        };
        if conditions.iter().any(|other| other.name == condition.name) {
            item.fault("this header stands here twice: names are the same in any case");
            return None;
        }
        conditions.push(condition);
    }
    Some(conditions)
}
