//! Which user a process runs as.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::process::{Account, AccountError};

/// Who an application runs as, and how that came about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chosen {
    /// `None`: as whoever started the server.
    pub account: Option<Account>,
    /// A warning for the start-up lines.
    pub warning: Option<String>,
}

/// Whether we may choose at all.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user of an application: the one that is named, else, for root, the owner of its folder.
///
/// A name that we cannot become, because we are not root, is only accepted where it is our own.
pub fn of_application(name: Option<&str>, group: Option<&str>, folder: &Path) -> Result<Chosen, AccountError> {
    let own = rustix::process::geteuid().as_raw();
    if let Some(name) = name {
        let account = Account::find(name, group)?;
        if !is_root() && account.identity.user != own {
            let warning =
                format!("`user = \"{name}\"` has no effect: only root can run an application as another user");
            return Ok(Chosen { account: None, warning: Some(warning) });
        }
        return Ok(Chosen { account: is_root().then_some(account), warning: None });
    }
    if !is_root() {
        return Ok(Chosen { account: None, warning: None });
    }
    let owner = std::fs::metadata(folder).map_or(0, |folder| folder.uid());
    if owner == 0 {
        let folder = folder.display();
        let warning = format!(
            "the application runs as root: daemun was started as root and {folder} belongs to root; \
             set `user` in [server], or --user [D410]"
        );
        return Ok(Chosen { account: None, warning: Some(warning) });
    }
    Ok(Chosen { account: Account::of_user(owner), warning: None })
}
