//! What is transformed by what.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The settings of `xslt`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct XsltSettings {
    /// The folder below which everything lies that a stylesheet loads.
    pub root: PathBuf,
    /// The stylesheet's path below the root, with a slash before it; `None`: the one that the document names.
    pub stylesheet: Option<String>,
    /// What the root stands for in URLs, without a slash at its end.
    pub prefix: String,
    /// Names and texts of `xsl:param`.
    pub parameters: Vec<(String, String)>,
    /// Whether a document that cannot be transformed passes as it is; else it is a 500.
    pub passes_on_error: bool,
    /// Bytes of a document, of a file that a stylesheet loads, and of a result.
    pub max_size: u64,
    /// Time of one transformation.
    pub timeout: Duration,
}

impl XsltSettings {
    /// As `explain` shows it.
    pub(in crate::filter) fn describe(&self) -> String {
        let root = self.root.display();
        match &self.stylesheet {
            Some(path) => format!("XML by {root}{path}"),
            None => format!("XML by the stylesheet that it names, below {root}"),
        }
    }
}
