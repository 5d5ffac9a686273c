//! Python files as applications: how a file is imported, and which WSGI callable it offers, by a look at the names at
//! its top level.

use std::path::{Path, PathBuf};

use crate::app::Mount;

/// An application that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct Application {
    /// Working folder and first place of `sys.path`.
    pub(in crate::config) directory: PathBuf,
    pub(in crate::config) mounts: Vec<Mount>,
    /// Whether a `manage.py` stands in the folder.
    pub(in crate::config) django: bool,
    /// For the start-up lines.
    pub(in crate::config) description: String,
}

/// What a file offers.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Scan {
    /// A WSGI callable, or a factory with its parentheses.
    Found(String),
    /// Only an ASGI callable of this name.
    Asgi(String),
    /// Neither.
    Nothing,
}

/// A module file: its package says the folder, its text the callable.
pub(super) fn module_file(path: &Path, callable: Option<&str>) -> Result<Application, String> {
    let (directory, module) = importable(path)?;
    let callable = match callable {
        Some(callable) => callable.to_owned(),
        None => match scan(&read(path)?) {
            Scan::Found(callable) => callable,
            Scan::Asgi(name) => return Err(format!("`{name}` in {} is an ASGI application: {ASGI}", path.display())),
            Scan::Nothing => {
                let looked = "looked for `application`, `app`, `create_app()` and `make_app()`";
                return Err(format!("{} has no WSGI callable at its top level; {looked}", path.display()));
            }
        },
    };
    let callable = self::callable(&format!("{module}:{callable}"))?;
    let description = format!("{callable} ({})", path.display());
    let mounts = vec![Mount { path: String::new(), callable }];
    Ok(Application { django: directory.join("manage.py").is_file(), directory, mounts, description })
}

/// The folder from which a file can be imported, and its name there: above all folders with an `__init__.py`.
fn importable(path: &Path) -> Result<(PathBuf, String), String> {
    let mut module = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    let mut folder = path.parent().unwrap_or(Path::new("/"));
    while folder.join("__init__.py").is_file()
        && let (Some(above), Some(name)) = (folder.parent(), folder.file_name().and_then(|name| name.to_str()))
    {
        module = format!("{name}.{module}");
        folder = above;
    }
    if !module.split('.').all(is_identifier) {
        return Err(format!("{} cannot be imported: `{module}` is not a module name", path.display()));
    }
    Ok((folder.to_path_buf(), module))
}

/// Reads source text; what is not UTF-8 in it does not matter here.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `module:callable` or `module:factory()`, found well-formed. Whether the arguments of a factory are literals is for
/// Python to say.
pub(in crate::config) fn callable(text: &str) -> Result<String, String> {
    let wrong = |more: String| format!("expected `module:callable` or `module:factory()`{more}, found {text:?}");
    let Some((module, name)) = text.split_once(':') else {
        let dotted = !text.is_empty() && text.split('.').all(is_identifier);
        return Err(wrong(if dotted { format!(", such as `{text}:application`") } else { String::new() }));
    };
    let (name, is_closed) = name.split_once('(').map_or((name, true), |(name, rest)| (name, rest.ends_with(')')));
    if !is_closed || !module.split('.').all(is_identifier) || !name.split('.').all(is_identifier) {
        return Err(wrong(String::new()));
    }
    if module.rsplit('.').next() == Some("asgi") {
        return Err(format!("{ASGI}; name the WSGI callable instead of {text:?}"));
    }
    Ok(text.to_owned())
}

/// Looks for `application`, `app`, then for the factories `create_app` and `make_app`.
fn scan(text: &str) -> Scan {
    let names = top_level_names(text);
    let mut asgi = None;
    for (wanted, call) in [("application", ""), ("app", ""), ("create_app", "()"), ("make_app", "()")] {
        // The last binding of a name is the one that counts.
        match names.iter().rev().find(|(name, _)| name == wanted) {
            Some((_, true)) => asgi = asgi.or(Some(wanted)),
            Some((_, false)) => return Scan::Found(format!("{wanted}{call}")),
            None => {}
        }
    }
    asgi.map_or(Scan::Nothing, |name| Scan::Asgi(name.to_owned()))
}

/// The names that are bound outside of functions and classes, and whether each looks like ASGI.
fn top_level_names(text: &str) -> Vec<(String, bool)> {
    let mut names = Vec::new();
    let mut inside_definition = false;
    let mut open_import = false;
    let mut quotes: Option<&str> = None;
    for line in text.lines() {
        let code = outside_strings(line, &mut quotes);
        let statement = code.trim_start();
        if statement.is_empty() || statement.starts_with('#') {
            continue;
        }
        if open_import {
            imported(statement, &mut names);
            open_import = !statement.contains(')');
            continue;
        }
        let indented = statement.len() != code.len();
        if indented && inside_definition {
            continue;
        }
        if !indented {
            inside_definition = ["def ", "class ", "async def "].iter().any(|start| statement.starts_with(start));
        }
        if let Some((_, list)) = statement.split_once(" import ").filter(|_| statement.starts_with("from ")) {
            imported(list, &mut names);
            open_import = list.trim_start().starts_with('(') && !list.contains(')');
        } else {
            names.extend(bound(statement));
        }
    }
    names
}

/// What a statement binds.
fn bound(statement: &str) -> Option<(String, bool)> {
    let (rest, asgi) = match statement.strip_prefix("async ") {
        Some(rest) => (rest, true),
        None => (statement, false),
    };
    for keyword in ["def ", "class "] {
        if let Some(rest) = rest.strip_prefix(keyword) {
            let name = rest.split(['(', ':', ' ']).next().unwrap_or_default();
            return is_identifier(name).then(|| (name.to_owned(), asgi));
        }
    }
    let (target, value) = statement.split_once('=').filter(|(_, value)| !value.starts_with('='))?;
    let name = target.split(':').next().unwrap_or_default().trim();
    let asgi = ["FastAPI(", "Starlette(", "Litestar(", "Quart(", "get_asgi_application("];
    is_identifier(name).then(|| (name.to_owned(), asgi.iter().any(|maker| value.contains(maker))))
}

/// The names that an import binds: `a, b as c`, with or without parentheses.
fn imported(list: &str, names: &mut Vec<(String, bool)>) {
    let list = list.split('#').next().unwrap_or_default();
    for part in list.split([',', '(', ')']) {
        let name = part.split_whitespace().last().unwrap_or_default();
        if is_identifier(name) {
            names.push((name.to_owned(), false));
        }
    }
}

/// The line without what is inside triple-quoted strings; `quotes` is the kind that is open at its end.
fn outside_strings<'a>(line: &'a str, quotes: &mut Option<&'static str>) -> &'a str {
    let mut code = line;
    if let Some(open) = *quotes {
        match line.find(open) {
            Some(end) => {
                *quotes = None;
                code = &line[end + 3..];
            }
            None => return "",
        }
    }
    for kind in ["\"\"\"", "'''"] {
        if let Some(start) = code.find(kind) {
            if !code[start + 3..].contains(kind) {
                *quotes = Some(kind);
            }
            return &code[..start];
        }
    }
    code
}

/// Python's rule for names, as far as a look can tell: keywords pass.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|character| character.is_alphanumeric() || character == '_')
}

/// Said wherever only an ASGI callable is there.
pub(super) const ASGI: &str = "ASGI is not supported yet";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callable_is_found_by_its_name_in_order() {
        for (text, want) in [
            ("application = get_wsgi_application()\n", "application"),
            ("app = Flask(__name__)\napplication = app\n", "application"),
            ("app: Flask = Flask(__name__)\n", "app"),
            ("from shop import app as application\n", "application"),
            ("from shop import (\n    other,\n    app,  # the one\n)\n", "app"),
            ("def application(environ, start_response):\n    app = 1\n", "application"),
            ("class app:\n    pass\n", "app"),
            ("def create_app(config=None):\n    app = Flask(__name__)\n    return app\n", "create_app()"),
            ("def make_app():\n    pass\n", "make_app()"),
            ("try:\n    from a import app\nexcept ImportError:\n    app = None\n", "app"),
            ("if True:\n    application = x\n", "application"),
            ("\"\"\"Doc.\n\napp = no\n\"\"\"\n\napplication = x\n", "application"),
            ("app = FastAPI()\napp = WSGIMiddleware(app)\n", "app"),
        ] {
            assert_eq!(scan(text), Scan::Found(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_callable_is_not_found() {
        for text in [
            "",
            "# app = x\n",
            "app == x\n",
            "\"\"\"\napp = x\n\"\"\"\n",
            "def run():\n    app = x\n\n    application = y\n",
            "class A:\n    app = x\n",
            "application.config = x\n",
            "my_app = x\n",
        ] {
            assert_eq!(scan(text), Scan::Nothing, "{text}");
        }
        assert_eq!(scan("app = FastAPI()\n"), Scan::Asgi("app".to_owned()));
        assert_eq!(
            scan("async def application(scope, receive, send):\n    pass\n"),
            Scan::Asgi("application".to_owned())
        );
    }
}
