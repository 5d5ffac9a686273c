//! Landlock: what of the file system a program may see.

use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    path_beneath_rules,
};

use super::profile::Sandbox;

/// What programs of every kind need to be executed at all: the system's programs, libraries and settings.
const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/dev/urandom", "/proc/self"];

/// What may be written to whatever the route says.
const SINKS: [&str; 1] = ["/dev/null"];

/// Builds the ruleset. Paths that are not there are left out; a kernel without Landlock is an error, since a sandbox
/// that is not there protects nobody.
pub(super) fn build(sandbox: &Sandbox) -> Result<Option<OwnedFd>, RulesetError> {
    // The rights of Linux 5.13 are asked for without fail; those that later kernels know are taken where they are.
    let needed = AccessFs::from_all(ABI::V1);
    let known = AccessFs::from_all(ABI::V5);
    let read = AccessFs::from_read(ABI::V5);
    let created = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(needed)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(known)?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules(&sandbox.read, read))?
        .add_rules(path_beneath_rules(SINKS, known))?
        .add_rules(path_beneath_rules(&sandbox.write, known))?;
    Ok(created.into())
}
