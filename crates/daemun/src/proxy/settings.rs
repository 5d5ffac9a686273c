//! What a route says of the scripts that its upstream runs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `upstream = { name = "php", root = "…" }`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ScriptSettings {
    /// The name of the upstream.
    pub upstream: String,
    /// The folder of the scripts; `None` for an application that answers every path.
    pub root: Option<PathBuf>,
    /// What the servers call that folder, where it is another path for them.
    pub server_root: Option<PathBuf>,
    /// How the names of scripts end. Default `.php`.
    pub split: String,
    /// Scripts that answer for their folder. Default `index.php`.
    pub index: Vec<String>,
    /// The script that answers for a name that is not there; `None`: the next best route does.
    pub missing: Option<String>,
    /// Variables beyond, or instead of, those of the request.
    pub params: Vec<(String, String)>,
}

impl ScriptSettings {
    /// How the names of scripts end where the route says nothing.
    pub const SPLIT: &str = ".php";

    /// What answers for a folder where the route says nothing.
    pub const INDEX: &str = "index.php";
}
