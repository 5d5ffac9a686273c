//! What a browser sees of an application that cannot be imported, where somebody develops it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::handler::Dress;
use crate::http::{Fields, ResponseBody};
use crate::respond::page;

/// Why an application has no worker, and will have none until its source is mended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Broken {
    /// As it stands in the log.
    pub text: String,
    /// As a page, where the interpreter came so far as to make one.
    pub page: Option<String>,
}

impl Broken {
    /// Puts this into an error's page: the browser's page as a page, every other as text.
    pub(super) fn dress(&self) -> Dress {
        let text = Bytes::from(format!("{}\n", self.text));
        let html = self.page.clone().unwrap_or_else(|| {
            let text = page::escape(&self.text);
            page::html(
                "The application cannot be loaded",
                &format!("<h1>The application cannot be loaded</h1>\n<pre>{text}</pre>"),
            )
        });
        Dress::new(move |response| {
            let is_html = response.fields.get("content-type").is_some_and(|kind| kind.starts_with(b"text/html"));
            let (body, kind) = if is_html { (Bytes::from(html), "text/html") } else { (text, "text/plain") };
            let is_head = matches!(response.body, ResponseBody::LengthOnly(_));
            let length = body.len() as u64;
            let mut fields = Fields::new().with("Content-Type", format!("{kind}; charset=utf-8"));
            fields.push("Cache-Control", "no-store");
            response.fields = fields;
            response.body = if is_head { ResponseBody::LengthOnly(length) } else { ResponseBody::Full(body) };
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Response, Status};

    fn dressed(broken: &Broken, kind: &'static str) -> String {
        let mut response =
            Response::new(Status::INTERNAL_SERVER_ERROR).with_fields(Fields::new().with("Content-Type", kind));
        broken.dress().apply(&mut response);
        match response.body {
            ResponseBody::Full(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_browser_gets_the_page_and_a_program_the_text() {
        let broken = Broken { text: String::from("a < b"), page: Some(String::from("<p>page")) };
        assert_eq!(dressed(&broken, "text/html; charset=utf-8"), "<p>page");
        assert_eq!(dressed(&broken, "application/json"), "a < b\n");
        let bare = Broken { page: None, ..broken };
        assert!(dressed(&bare, "text/html; charset=utf-8").contains("<pre>a &lt; b</pre>"));
    }
}
