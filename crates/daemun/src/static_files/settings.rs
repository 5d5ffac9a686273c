//! Which files a route serves, and how.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `static = { … }` on a route.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
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
    /// Whether `a.css.br`, `a.css.zst` and `a.css.gz` are sent for `a.css` to clients that take them, where they are not
    /// older and are smaller.
    pub precompressed: bool,
    /// Whether a folder without an index answers with the list of what is in it.
    pub listing: bool,
    /// Content types by ending (`.x`) or by whole name, before those that are known.
    pub types: BTreeMap<String, String>,
    /// Fields on every file that is sent; they take the place of our own of the same name.
    pub headers: BTreeMap<String, String>,
    /// Seconds for which files may be kept without asking; those that the manifest hashes for ever. `None`: nothing is
    /// said, or a minute where there is a manifest.
    pub max_age: Option<u32>,
    /// Whether nothing is said of plain names, not even where there is a manifest.
    pub age_unsaid: bool,
    /// Whether the files come from visitors: pages and images that a browser would run scripts of get an origin of
    /// their own.
    pub uploads: bool,
    /// Where the files of a Django project come from, in the order in which its finders look: the roots themselves, or
    /// what was collected to them. Nothing is served by it: it lets `explain` say whose a file is.
    pub sources: Vec<Source>,
}

/// A folder that Django's finders look through.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Source {
    /// The folder, and what stands before the names in it.
    pub root: Root,
    /// Who brings it.
    pub owner: Owner,
}

/// Who brings a folder of static files.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Owner {
    /// An application, by its whole name: `django.contrib.admin`.
    Application(String),
    /// A setting, with its line where that is known: `STATICFILES_DIRS, settings.py:120`.
    Setting(String),
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
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Missing {
    /// 404.
    #[default]
    NotFound,
    /// The next best route answers.
    Next,
    /// This path of the same route answers, for instance `/index.html` of a single-page site.
    File(String),
}
