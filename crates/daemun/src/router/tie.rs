//! Rules that contradict or hide one another.

use std::collections::HashMap;

use super::pattern::{HostPattern, PathPattern};
use super::rules::Rule;

/// Two rules of which neither is more specific.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{path}` on host `{host}` stands at {first} and at {second}; which of them answers?")]
pub struct Tie {
    /// Their hosts.
    pub host: HostPattern,
    /// Their paths.
    pub path: PathPattern,
    /// Where the first was written.
    pub first: String,
    /// Where the second was written.
    pub second: String,
}

/// A rule that is never asked on some hosts, because a rule for those hosts takes all its paths first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shadow {
    /// The place of the hidden rule in the list.
    pub hidden: usize,
    /// The place of the one that hides it.
    pub by: usize,
}

/// Every pair of rules of which neither is more specific. Two patterns that can match the same path with the same
/// specificity are the same pattern: prefixes of one length that match one path are equal, and so are suffixes. Of
/// those the one with more conditions wins; with as many it is a tie, unless they exclude each other.
pub fn ties<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Vec<Tie> {
    let mut seen: HashMap<(&HostPattern, &PathPattern), Vec<&Rule>> = HashMap::new();
    let mut ties = Vec::new();
    for rule in rules {
        let same = seen.entry((&rule.host, &rule.path)).or_default();
        let rival = same.iter().find(|other| {
            other.conditions.count() == rule.conditions.count() && !other.conditions.excludes(&rule.conditions)
        });
        if let Some(first) = rival {
            ties.push(Tie {
                host: rule.host.clone(),
                path: rule.path.clone(),
                first: first.origin.clone(),
                second: rule.origin.clone(),
            });
        }
        same.push(rule);
    }
    ties
}

/// Rules that are never asked on the hosts of another. Hosts come before paths, so a rule for any host loses to
/// *every* rule of a host that matches, however short its path: what is meant for all sites is easily hidden by the
/// `/*` of one. `declines` says which rules let the walk go on.
pub fn shadows(rules: &[&Rule], declines: impl Fn(usize) -> bool) -> Vec<Shadow> {
    let mut shadows = Vec::new();
    for (by, strong) in rules.iter().enumerate() {
        if strong.conditions.count() > 0 || declines(by) {
            continue;
        }
        for (hidden, weak) in rules.iter().enumerate() {
            if strong.host.is_narrower(&weak.host) && strong.path.covers(&weak.path) {
                shadows.push(Shadow { hidden, by });
            }
        }
    }
    shadows
}
