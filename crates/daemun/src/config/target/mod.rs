//! What there is to serve: a configuration, a Django project, a WSGI module or a folder of files, found by looking,
//! never by running anything.

mod django;
mod module;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use super::fault::{ConfigFault, Place};
use super::section::list;
use crate::app::Mount;
use module::Scan;

/// Files that may hold a WSGI callable, in the order in which they are looked for.
const MODULES: [&str; 3] = ["wsgi.py", "app.py", "main.py"];

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// A configuration file.
    Configuration(PathBuf),
    /// An application.
    Application(Application),
    /// A folder of files.
    Files(PathBuf),
}

/// An application that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Application {
    /// Working folder and first place of `sys.path`.
    pub(super) directory: PathBuf,
    pub(super) mounts: Vec<Mount>,
    /// Whether a `manage.py` stands in the folder.
    pub(super) django: bool,
    /// For the start-up lines.
    pub(super) description: String,
}

/// Where a target is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looking<'a> {
    /// What relative paths are relative to, and where modules are without `directory`.
    pub(super) base: &'a Path,
    /// `--directory` or `directory`.
    pub(super) directory: Option<&'a Path>,
    /// Whether a `daemun.toml` may be the answer: not inside of one.
    pub(super) configurations: bool,
}

// === impl Looking ===

impl Looking<'_> {
    /// What these targets are; without any, what there is in the folder.
    pub(super) fn find(&self, targets: &[String]) -> Result<Target, ConfigFault> {
        match targets {
            [] => self.search(self.directory.unwrap_or(self.base), false),
            [one] if !one.starts_with('/') || !one.contains('=') => self.single(one),
            several => self.mounted(several).map(Target::Application),
        }
    }

    fn single(&self, target: &str) -> Result<Target, ConfigFault> {
        let wrong = |message: String| fault(format!("`{target}`"), message);
        if target.is_empty() {
            return Err(wrong("expected a path or module:callable".to_owned()));
        }
        let path = super::environment::join(self.base, target);
        if path.is_dir() {
            return self.search(&path, true);
        }
        if path.is_file() {
            return self.file(&path, None).map_err(wrong);
        }
        if let Some((file, callable)) = target.rsplit_once(':').filter(|(file, _)| is_python(Path::new(file))) {
            let path = super::environment::join(self.base, file);
            return if path.is_file() {
                self.file(&path, Some(callable)).map_err(wrong)
            } else {
                Err(wrong(format!("there is no file {}", path.display())))
            };
        }
        if target.contains(':') {
            let callable = callable(target).map_err(wrong)?;
            return Ok(Target::Application(self.application(vec![Mount { path: String::new(), callable }])));
        }
        let dotted = target.split('.').all(is_identifier);
        Err(wrong(if dotted && target.contains('.') {
            format!("there is no such file or folder; a module needs its callable: `{target}:application`")
        } else {
            "there is no such file or folder; expected a daemun.toml, a project folder, a Python file or module:callable"
                .to_owned()
        }))
    }

    /// A file that was named.
    fn file(&self, path: &Path, callable: Option<&str>) -> Result<Target, String> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let folder = path.parent().unwrap_or(self.base);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") if self.configurations => Ok(Target::Configuration(path.to_path_buf())),
            Some("py") if name == "manage.py" && callable.is_none() => django::find(folder).map(Target::Application),
            Some("py") => module_file(path, callable).map(Target::Application),
            Some("html" | "htm") => Ok(Target::Files(folder.to_path_buf())),
            _ => Err("expected a daemun.toml, a project folder, a Python file or module:callable".to_owned()),
        }
    }

    fn search(&self, folder: &Path, named: bool) -> Result<Target, ConfigFault> {
        let wrong = |message: String| fault(folder.display().to_string(), message);
        let configuration = folder.join("daemun.toml");
        if self.configurations && configuration.is_file() {
            return Ok(Target::Configuration(configuration));
        }
        if folder.join("manage.py").is_file() {
            return django::find(folder).map(Target::Application).map_err(wrong);
        }
        let below = django::projects_below(folder);
        if let [project] = &below[..] {
            return django::find(project).map(Target::Application).map_err(wrong);
        }
        let mut notes = Vec::new();
        for path in MODULES.map(|name| folder.join(name)).into_iter().filter(|path| path.is_file()) {
            match module_file(&path, None) {
                Ok(application) => return Ok(Target::Application(application)),
                Err(note) => notes.push(note),
            }
        }
        if notes.is_empty() && folder.join("asgi.py").is_file() {
            return Err(wrong(format!("{} is there, but no WSGI module: {ASGI}", folder.join("asgi.py").display())));
        }
        if folder.join("index.html").is_file() || (named && notes.is_empty() && below.is_empty()) {
            return Ok(Target::Files(folder.to_path_buf()));
        }
        if below.len() > 1 {
            let projects: Vec<String> = below.iter().map(|project| format!("`{}`", project.display())).collect();
            notes.push(format!("there are several Django projects below, name one: {}", list(&projects)));
        }
        let configuration = if self.configurations { "daemun.toml, " } else { "" };
        notes.insert(
            0,
            format!(
                "nothing to serve was found; looked for {configuration}manage.py (also one folder down, if only one), \
                 wsgi.py, app.py, main.py, asgi.py and index.html"
            ),
        );
        Err(wrong(notes.join("; ")))
    }

    /// `/=shop.wsgi:application /wiki=wiki:app`.
    fn mounted(&self, targets: &[String]) -> Result<Application, ConfigFault> {
        let mut mounts: Vec<Mount> = Vec::new();
        for target in targets {
            let wrong = |message: String| fault(format!("`{target}`"), message);
            let split = target.split_once('=').filter(|(path, _)| path.starts_with('/'));
            let Some((path, text)) = split else {
                return Err(wrong("with several targets each needs a mount, such as `/wiki=wiki:app`".to_owned()));
            };
            let path = mount_path(path).map_err(wrong)?;
            if mounts.iter().any(|mount| mount.path == path) {
                return Err(wrong(format!("something is mounted at `{path}/` already")));
            }
            mounts.push(Mount { path, callable: callable(text).map_err(wrong)? });
        }
        let application = self.application(mounts);
        check_settings(&application).map_err(|message| fault("the targets", message))?;
        Ok(application)
    }

    fn application(&self, mounts: Vec<Mount>) -> Application {
        let directory = self.directory.unwrap_or(self.base).to_path_buf();
        let names: Vec<String> = mounts.iter().map(described).collect();
        let description = format!("{} in {}", names.join(", "), directory.display());
        Application { django: directory.join("manage.py").is_file(), directory, mounts, description }
    }
}

/// Said wherever only an ASGI callable is there.
const ASGI: &str = "ASGI is not supported yet";

fn described(mount: &Mount) -> String {
    match mount.path.as_str() {
        "" => mount.callable.clone(),
        path => format!("{path}={}", mount.callable),
    }
}

fn fault(place: impl Into<String>, message: impl Into<String>) -> ConfigFault {
    ConfigFault { place: Place::named(place), message: message.into() }
}

/// A module file: its package says the folder, its text the callable.
fn module_file(path: &Path, callable: Option<&str>) -> Result<Application, String> {
    let (directory, module) = importable(path)?;
    let callable = match callable {
        Some(callable) => callable.to_owned(),
        None => match module::scan(&read(path)?) {
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
fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `module:callable` or `module:factory()`, found well-formed.
pub(super) fn callable(text: &str) -> Result<String, String> {
    let wrong = |more: String| format!("expected `module:callable` or `module:factory()`{more}, found {text:?}");
    let Some((module, name)) = text.split_once(':') else {
        let dotted = !text.is_empty() && text.split('.').all(is_identifier);
        return Err(wrong(if dotted { format!(", such as `{text}:application`") } else { String::new() }));
    };
    let name = name.strip_suffix("()").unwrap_or(name);
    if !module.split('.').all(is_identifier) || !name.split('.').all(is_identifier) {
        return Err(wrong(String::new()));
    }
    if module.rsplit('.').next() == Some("asgi") {
        return Err(format!("{ASGI}; name the WSGI callable instead of {text:?}"));
    }
    Ok(text.to_owned())
}

/// The path of a mount without its last slash; empty for `/`.
pub(super) fn mount_path(text: &str) -> Result<String, String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    match (text.starts_with('/'), text.parse()) {
        (true, Ok(crate::router::PathPattern::Exact(_))) => Ok(path.to_owned()),
        _ => Err(format!("expected a path such as `/wiki` to mount at, found {text:?}")),
    }
}

/// Two Django projects cannot share a process: `django.conf.settings` is one for all of it.
pub(super) fn check_settings(application: &Application) -> Result<(), String> {
    let mut named: Vec<(String, &str)> = Vec::new();
    for mount in &application.mounts {
        let module = mount.callable.split(':').next().unwrap_or_default();
        let path = application.directory.join(module.replace('.', "/")).with_extension("py");
        let settings = read(&path).map(|text| django::settings_in(&text)).unwrap_or_default();
        named.extend(settings.into_iter().next().map(|settings| (settings, mount.callable.as_str())));
    }
    let Some((first, rest)) = named.split_first() else { return Ok(()) };
    match rest.iter().find(|(settings, _)| *settings != first.0) {
        None => Ok(()),
        Some(other) => Err(format!(
            "`{}` and `{}` are two Django projects, and settings are global to a process; give each an [app] of its own",
            first.1, other.1
        )),
    }
}

fn is_python(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "py")
}

/// Python's rule for names, as far as a look can tell: keywords pass.
fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|character| character.is_alphanumeric() || character == '_')
}
