//! Rust source with what does not count blanked out. Lines and columns stay where they were.

/// `text` with comments, strings and characters turned into spaces.
pub(crate) fn without_words(text: &str) -> String {
    let mut out: Vec<char> = Vec::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let end = word_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out.into_iter().collect()
}

/// Where the comment, string or character that begins at `at` ends; `at` when none does.
fn word_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => find(chars, at, |rest| rest[0] == '\n'),
        '/' if next == Some('*') => block_comment_end(chars, at),
        '"' => string_end(chars, at),
        'r' if !part_of_name(chars, at) => raw_string_end(chars, at),
        '\'' if next == Some('\\') => {
            // The escaped character itself may be a quote.
            (find(chars, at + 3, |rest| rest[0] == '\'') + 1).min(chars.len())
        }
        // Else it is a lifetime.
        '\'' if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

fn find(chars: &[char], from: usize, is: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|&at| is(&chars[at..])).unwrap_or(chars.len())
}

fn part_of_name(chars: &[char], at: usize) -> bool {
    // `br"…"` and `cr"…"` are raw strings as well.
    let mut before = chars[..at].iter().rev();
    match before.next() {
        Some('b' | 'c') => before.next().is_some_and(|&c| c.is_alphanumeric() || c == '_'),
        Some(&c) => c.is_alphanumeric() || c == '_',
        None => false,
    }
}

fn block_comment_end(chars: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut at = from;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn string_end(chars: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn raw_string_end(chars: &[char], from: usize) -> usize {
    let hashes = chars[from + 1..].iter().take_while(|&&c| c == '#').count();
    let open = from + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return from;
    }
    let ends = |rest: &[char]| rest[0] == '"' && rest[1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
    (find(chars, open + 1, ends) + 1 + hashes).min(chars.len())
}

/// `text` without words, and with every item under `#[cfg(test)]` blanked out too.
pub(crate) fn without_tests(text: &str) -> String {
    blank_tests(text).0
}

/// How many lines of `text` belong to items under `#[cfg(test)]`.
pub(crate) fn test_lines(text: &str) -> usize {
    blank_tests(text).1
}

fn blank_tests(text: &str) -> (String, usize) {
    let mut bare = without_words(text);
    let mut lines = 0;
    while let Some(start) = bare.find("#[cfg(test)]") {
        let end = start + item_end(&bare[start..]);
        let blank: String = bare[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        lines += blank.matches('\n').count() + 1;
        bare.replace_range(start..end, &blank);
    }
    (bare, lines)
}

/// Where the item that `text` begins with ends: after its first block, or its first semicolon outside one.
fn item_end(text: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The number of the line that the byte at `at` stands in.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[test]
fn words_are_blanked_and_code_stays() {
    for (text, want) in [
        ("a // b\nc", "a c"),
        ("a /* /* b */ { */ c", "a c"),
        (r#"f("{ \" }") x"#, "f( ) x"),
        ("f('{', '\\'', 'a) x", "f( , , 'a) x"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        (r##"a r#"b " c"# br"}" d"##, "a b d"),
        ("char r#type for", "char r#type for"),
    ] {
        let got = without_words(text);
        assert_eq!(got.split_whitespace().collect::<Vec<_>>().join(" "), want, "{text}");
        assert_eq!(got.chars().count(), text.chars().count(), "{text}");
    }
}

#[test]
fn test_items_are_blanked_to_their_end() {
    let text = "use a;\n#[cfg(test)]\nmod tests {\n  fn x() { '}' }\n}\nfn y() {}\n#[cfg(test)]\nuse b;\nfn z() {}\n";
    let bare = without_tests(text);
    assert!(bare.contains("use a;") && bare.contains("fn y") && bare.contains("fn z"));
    assert!(!bare.contains("mod tests") && !bare.contains("fn x") && !bare.contains("use b"));
    assert_eq!(bare.lines().count(), text.lines().count());
    assert_eq!(test_lines(text), 6);
}
