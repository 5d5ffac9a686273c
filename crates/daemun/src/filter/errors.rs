//! `errors`: own pages by status.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::http::{RequestId, Response, ResponseBody};

/// Pages by status.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ErrorPages {
    /// The pages, those for one status before those for a hundred.
    pub pages: Vec<ErrorPage>,
    /// Whether they also take the place of answers of the handler.
    pub intercept: bool,
}

/// A page, read when the configuration was.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ErrorPage {
    /// The first status.
    pub from: u16,
    /// The last.
    pub to: u16,
    /// Its content type.
    pub content_type: String,
    /// Its text; `{status}` and `{reference}` are filled in.
    pub text: String,
    /// The file it was read from.
    pub file: String,
}

/// What speaks of the page that goes.
const OF_THE_OLD_PAGE: [&str; 10] = [
    "Content-Type",
    "Content-Encoding",
    "Content-Language",
    "Content-Disposition",
    "Content-Range",
    "Content-Security-Policy",
    "Accept-Ranges",
    "ETag",
    "Last-Modified",
    "Cache-Control",
];

impl ErrorPages {
    /// Puts the page for its status in the place of the answer. `is_ours` where no handler made it.
    pub(super) fn apply(&self, response: &mut Response, id: &RequestId, is_ours: bool) {
        if !is_ours && !self.intercept {
            return;
        }
        let code = response.status.code();
        let Some(page) = self.pages.iter().find(|page| (page.from..=page.to).contains(&code)) else { return };
        for name in OF_THE_OLD_PAGE {
            response.fields.remove(name);
        }
        response.fields.push(&b"Content-Type"[..], page.content_type.clone());
        response.fields.push(&b"Cache-Control"[..], "no-store");
        let text = page.text.replace("{status}", &code.to_string());
        let text = if text.contains("{reference}") { text.replace("{reference}", &id.to_string()) } else { text };
        response.reason = None;
        response.body = ResponseBody::Full(Bytes::from(text));
    }

    pub(super) fn describe(&self) -> String {
        let told = |page: &ErrorPage| match (page.from, page.to) {
            (from, to) if from == to => format!("{from}: {}", page.file),
            (from, _) => format!("{}xx: {}", from / 100, page.file),
        };
        let pages: Vec<String> = self.pages.iter().map(told).collect();
        let whose = if self.intercept { "also for answers of the handler" } else { "not for answers of the handler" };
        format!("{}; {whose}", pages.join(", "))
    }
}
