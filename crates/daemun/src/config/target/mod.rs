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
use module::{ASGI, module_file, read};

pub(super) use module::{Application, callable};

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
            // The `=` of a factory's arguments mounts nothing.
            [one] if !one.starts_with('/') || !one.split('(').next().is_some_and(|first| first.contains('=')) => {
                self.single(one)
            }
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
        let outside_call = target.find('(').unwrap_or(target.len());
        let colon = target[..outside_call].rfind(':').map(|at| (&target[..at], &target[at + 1..]));
        if let Some((file, callable)) = colon.filter(|(file, _)| is_python(Path::new(file))) {
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
        let dotted = target.split('.').all(module::is_identifier);
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

fn described(mount: &Mount) -> String {
    match mount.path.as_str() {
        "" => mount.callable.clone(),
        path => format!("{path}={}", mount.callable),
    }
}

fn fault(place: impl Into<String>, message: impl Into<String>) -> ConfigFault {
    ConfigFault { place: Place::named(place), message: message.into() }
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
