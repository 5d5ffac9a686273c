//! Users of the system, by name or number.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::sys::Identity;

/// A user with all that belongs to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// Ids.
    pub identity: Identity,
    /// Login name; the number where there is none.
    pub name: String,
    /// Home folder.
    pub home: String,
}

/// Why there is no such account.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No user of this name or number.
    #[error("there is no user `{0}`")]
    NoUser(String),
    /// No group of this name or number.
    #[error("there is no group `{0}`")]
    NoGroup(String),
    /// The system's data base cannot be read.
    #[error("cannot look `{0}` up: {1}")]
    Lookup(String, nix::Error),
}

impl Account {
    /// The account of this user name or number, with another primary group where one is given.
    pub fn find(user: &str, group: Option<&str>) -> Result<Self, AccountError> {
        let found = match user.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(user),
        };
        let found = found.map_err(|error| AccountError::Lookup(user.to_owned(), error))?;
        let found = found.ok_or_else(|| AccountError::NoUser(user.to_owned()))?;
        let gid = group.map_or(Ok(found.gid), find_group)?;
        Ok(Self::of(&found, gid))
    }

    /// The account that owns a file, by its number.
    pub fn of_user(uid: u32) -> Option<Self> {
        let found = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
        Some(Self::of(&found, found.gid))
    }

    fn of(user: &User, gid: Gid) -> Self {
        // A name with a NUL cannot come out of the data base; without supplementary groups a process has fewer rights.
        let name = std::ffi::CString::new(user.name.as_bytes()).unwrap_or_default();
        let groups = getgrouplist(&name, gid).unwrap_or_default().into_iter().map(Gid::as_raw).collect();
        Self {
            identity: Identity { user: user.uid.as_raw(), group: gid.as_raw(), groups },
            name: user.name.clone(),
            home: user.dir.to_string_lossy().into_owned(),
        }
    }
}

/// The number of this group name or number.
pub fn find_group(group: &str) -> Result<Gid, AccountError> {
    let found = match group.parse() {
        Ok(number) => return Ok(Gid::from_raw(number)),
        Err(_) => Group::from_name(group),
    };
    let found = found.map_err(|error| AccountError::Lookup(group.to_owned(), error))?;
    found.map(|group| group.gid).ok_or_else(|| AccountError::NoGroup(group.to_owned()))
}

/// A user id that nobody has, for a process that should share its user with none: from the range that is set aside for
/// such (61184 to 65519, systemd's dynamic users).
pub fn unused_identity() -> Identity {
    let taken = |uid: u32| User::from_uid(Uid::from_raw(uid)).ok().flatten().is_some();
    let user = (61_184..65_520).find(|&uid| !taken(uid)).unwrap_or(65_534);
    Identity { user, group: user, groups: Vec::new() }
}
