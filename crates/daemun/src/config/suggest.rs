//! The right word for a wrong one.

/// What other servers and frameworks call our keys and options.
const FOREIGN: &[(&str, &str)] = &[
    ("bind", "listen"),
    ("chdir", "directory"),
    ("cwd", "directory"),
    ("root", "target"),
    ("pythonpath", "directory"),
    ("workers", "processes"),
    ("environment", "env"),
    ("env_files", "env_file"),
    ("virtualenv", "python"),
    ("venv", "python"),
    ("home", "python"),
    ("interpreter", "python"),
    ("module", "wsgi"),
    ("callable", "wsgi"),
    ("application", "wsgi"),
    ("graceful_timeout", "grace"),
    ("keepalive", "keep_alive"),
    ("max_body_size", "max_body"),
    ("client_max_body_size", "max_body"),
    ("pidfile", "pid_file"),
    ("accesslog", "access_log"),
    ("errorlog", "error_log"),
    ("location", "path"),
    ("hosts", "host"),
    ("url", "to"),
    ("code", "status"),
    ("apps", "app"),
    ("routes", "route"),
];

/// The nearest of `candidates` to `word`, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let plain = word.to_lowercase().replace('-', "_");
    let foreign = FOREIGN.iter().find(|(theirs, _)| *theirs == plain).map(|&(_, ours)| ours);
    if let Some(&ours) = candidates.iter().find(|&&candidate| Some(candidate) == foreign || candidate == plain) {
        return Some(ours);
    }
    // A typing mistake for every three letters: more, and any short word would be near any other.
    let allowed = (plain.chars().count() / 3).clamp(1, 3);
    let distance = |candidate: &str| strsim::osa_distance(&plain, &candidate.to_lowercase().replace('-', "_"));
    let near =
        candidates.iter().map(|&candidate| (distance(candidate), candidate)).min_by_key(|&(distance, _)| distance);
    near.filter(|&(distance, _)| distance <= allowed).map(|(_, candidate)| candidate)
}

/// `; did you mean …?`, or nothing.
pub(super) fn did_you_mean(word: &str, candidates: &[&str]) -> String {
    nearest(word, candidates).map_or_else(String::new, |candidate| format!("; did you mean `{candidate}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let keys = ["processes", "threads", "timeout", "listen", "max_requests", "env"];
        for (word, want) in [
            ("proceses", Some("processes")),
            ("timeuot", Some("timeout")),
            ("workers", Some("processes")),
            ("bind", Some("listen")),
            ("max-requests", Some("max_requests")),
            ("Env", Some("env")),
            ("evn", Some("env")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, &keys), want, "{word}");
        }
    }
}
