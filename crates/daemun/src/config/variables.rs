//! Environment variables in configuration: `${NAME}` in strings, and files of `KEY=VALUE` lines.

use super::environment::Environment;

/// Replaces `${NAME}` and `${NAME:-default}`; `$${` stands for `${`. The error says which variable is missing.
pub(super) fn substitute(text: &str, environment: &Environment) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            result.push_str(&rest[..start]);
            result.push('{');
            rest = &rest[start + 2..];
            continue;
        }
        result.push_str(&rest[..start]);
        let end = rest[start..].find('}').ok_or("`${` has no `}`; `$${` stands for the characters themselves")?;
        let inside = &rest[start + 2..start + end];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_name(name) {
            return Err(format!("`${{{inside}}}` does not name an environment variable; expected `${{NAME}}`"));
        }
        let value = environment.variable(name).or(default).or(environment.variables.get(name).map(String::as_str));
        match value {
            Some(value) => result.push_str(value),
            None => {
                return Err(format!(
                    "the environment has no variable `{name}`; set it, or give a default: `${{{name}:-value}}`"
                ));
            }
        }
        rest = &rest[start + end + 1..];
    }
    result.push_str(rest);
    Ok(result)
}

/// Reads `KEY=VALUE` lines: comments, blank lines, `export `, single and double quotes. Each with the number of its
/// line.
pub(super) fn env_file(text: &str) -> impl Iterator<Item = (usize, Result<(String, String), String>)> {
    text.lines().enumerate().filter_map(|(number, line)| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        Some((number + 1, assignment(line)))
    })
}

/// `KEY=VALUE` with quotes taken off. Faults do not repeat the line: it may hold a secret.
pub(super) fn assignment(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once('=').ok_or("expected KEY=VALUE")?;
    let name = name.trim_end();
    if !is_name(name) {
        return Err(format!("{name:?} cannot be the name of an environment variable"));
    }
    let value = value.trim_start();
    let value = match value.chars().next() {
        Some('\'') => value[1..].split_once('\'').map(|(inside, _)| inside.to_owned()),
        Some('"') => double_quoted(&value[1..]),
        _ => Some(value.split(" #").next().unwrap_or_default().trim_end().to_owned()),
    };
    let value = value.ok_or_else(|| format!("the quote around the value of {name} is not closed"))?;
    if value.contains('\0') { Err(format!("the value of {name} holds a NUL")) } else { Ok((name.to_owned(), value)) }
}

/// Up to the closing quote, with `\n`, `\t`, `\"`, `\\` and `\$` as shells and dotenv read them.
fn double_quoted(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => match characters.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\' | '$') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            character => value.push(character),
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_defaults_stand_in() {
        let variables = [("HOME", "/srv"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = Environment { variables: variables.into(), ..Environment::default() };
        for (text, want) in [
            ("${HOME}/x", "/srv/x"),
            ("a${HOME}b${HOME}", "a/srvb/srv"),
            ("${NONE:-x}", "x"),
            ("${NONE:-}", ""),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY}", ""),
            ("$${HOME} $HOME {x}", "${HOME} $HOME {x}"),
        ] {
            assert_eq!(substitute(text, &environment).as_deref(), Ok(want), "{text}");
        }
        for (text, want) in [
            ("${NONE}", "the environment has no variable `NONE`; set it, or give a default: `${NONE:-value}`"),
            ("${HOME", "`${` has no `}`; `$${` stands for the characters themselves"),
            ("${a b}", "`${a b}` does not name an environment variable; expected `${NAME}`"),
        ] {
            assert_eq!(substitute(text, &environment), Err(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_env_file_has_comments_quotes_and_exports() {
        let text = "# c\n\nA=1\nexport B=two words # c\nC='a # \"b'\r\nD=\"x\\ny \\\"q\\\" \\z\"\n E = e \nF=\nG=a#b\n";
        let told: Vec<String> =
            env_file(text).flat_map(|(_, variable)| variable).map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(told, ["A=1", "B=two words", "C=a # \"b", "D=x\ny \"q\" \\z", "E=e", "F=", "G=a#b"]);
        let faults = env_file("A\n1A=x\n\nB='x\nC=\"x\n").map(|(line, variable)| (line, variable.unwrap_err()));
        let want = [
            (1, "expected KEY=VALUE"),
            (2, "\"1A\" cannot be the name of an environment variable"),
            (4, "the quote around the value of B is not closed"),
            (5, "the quote around the value of C is not closed"),
        ];
        assert_eq!(faults.collect::<Vec<_>>(), want.map(|(line, message)| (line, message.to_owned())));
    }
}
