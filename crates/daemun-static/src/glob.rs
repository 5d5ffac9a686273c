//! File name patterns as Python's `fnmatch.fnmatchcase` reads them.

/// Whether `pattern` matches all of `name`: `*`, `?`, `[abc]`, `[!abc]` and ranges; a slash is a character like any.
pub(crate) fn matches(name: &str, pattern: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let pattern: Vec<char> = pattern.chars().collect();
    let (mut at, mut of) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(of) {
            Some('*') => {
                star = Some((of + 1, at));
                of += 1;
                continue;
            }
            None if at == name.len() => return true,
            Some(_) if at < name.len() => one(&pattern[of..], name[at]),
            _ => None,
        };
        if let Some(length) = step {
            at += 1;
            of += length;
            continue;
        }
        match star {
            Some((after, from)) if from < name.len() => {
                star = Some((after, from + 1));
                (of, at) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// How many characters of the pattern this one used up, if it fits.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern[0] {
        '?' => Some(1),
        '[' => {
            let negated = pattern.get(1) == Some(&'!');
            let start = if negated { 2 } else { 1 };
            // A bracket right at the start belongs to the set.
            let end = pattern.iter().skip(start + 1).position(|&c| c == ']').map(|end| end + start + 1);
            let Some(end) = end else { return (c == '[').then_some(1) };
            let set = &pattern[start..end];
            let mut found = false;
            let mut at = 0;
            while at < set.len() {
                if at + 2 < set.len() && set[at + 1] == '-' {
                    found |= (set[at]..=set[at + 2]).contains(&c);
                    at += 3;
                } else {
                    found |= set[at] == c;
                    at += 1;
                }
            }
            (found != negated).then_some(end + 1)
        }
        other => (other == c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_python() {
        for (name, pattern, want) in [
            ("a.css", "*.css", true),
            ("d/a.css", "*.css", true),
            ("a.CSS", "*.css", false),
            (".git", ".*", true),
            ("a~", "*~", true),
            ("CVS", "CVS", true),
            ("ab", "a?", true),
            ("a", "a?", false),
            ("a1", "a[0-9]", true),
            ("ax", "a[!0-9]", true),
            ("a]", "a[]]", true),
            ("a[", "a[", true),
            ("aXbXc", "a*b*c", true),
            ("abcb", "a*b", true),
            ("", "*", true),
            ("", "?", false),
        ] {
            assert_eq!(matches(name, pattern), want, "{name} {pattern}");
        }
    }
}
