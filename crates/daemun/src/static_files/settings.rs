//! Which files a route serves, and how.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `static = { … }` on a route.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StaticSettings {
    /// Folders that are looked through in order; the first that has the name answers.
    pub roots: Vec<Root>,
    /// Names that answer for a folder.
    pub index: Vec<String>,
    /// What happens when nothing of that name is there.
    pub missing: Missing,
    /// Whether `staticfiles.json` below the first root says which names are hashed: they get `immutable`.
    pub manifest: bool,
    /// Dotfiles that may be sent all the same, for instance `.htaccess`; `/.well-known/` always may.
    pub allow_names: Vec<String>,
    /// Whether databases and sources (`.sqlite3`, `.py`, `.php`, `.pl`, `.cgi`, …) are refused: true wherever a folder
    /// was named on the command line or found, false for a route written in a file.
    pub refuse_sources: bool,
    /// Whether what is in memory may be used without looking at the disk again for a second. False for sources
    /// that are being edited.
    pub cache: bool,
    /// What below the roots belongs to CGI routes, and is never sent.
    pub barred: Vec<Barred>,
}

/// Scripts of a CGI route that lie below a root.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Barred {
    /// The root that they lie below, as it stands in [`StaticSettings::roots`].
    pub root: PathBuf,
    /// Their folder below it; empty for the root itself.
    pub folder: String,
    /// How their names end; empty: everything in the folder.
    pub ending: String,
}

/// One folder of a static route.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Root {
    /// The folder.
    pub path: PathBuf,
    /// What stands before the names in it, for instance `vendor` for Django's `("vendor", "/srv/vendor")`: the file
    /// `a.css` is then `vendor/a.css`. Empty for most.
    pub prefix: String,
}

/// What a static route does with a name that is not there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Missing {
    /// 404.
    NotFound,
    /// The next best route answers.
    Next,
    /// This path of the same route answers, for instance `/index.html` of a single-page site.
    File(String),
}
