//! Which Python runs an application, and why.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::environment::{Environment, join};
use super::fault::{ConfigFault, Place};

/// An interpreter that was named.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Named {
    /// A path, a virtual environment's folder, or a name on `PATH`.
    pub(super) text: String,
    /// What a relative path is relative to.
    pub(super) folder: PathBuf,
    /// Where it was named.
    pub(super) place: Place,
    /// For the start-up lines.
    pub(super) reason: String,
}

/// Who asks for an interpreter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<'a> {
    pub(super) named: Option<&'a Named>,
    pub(super) environment: &'a Environment,
    /// The application's folder.
    pub(super) directory: &'a Path,
    /// A module outside of the application's folder that the interpreter must have, for instance `django`.
    pub(super) module: Option<&'a str>,
    /// Where a fault is told.
    pub(super) place: &'a Place,
}

// === impl Choice ===

impl Choice<'_> {
    /// The interpreter and why it is this one.
    pub(super) fn decide(&self) -> Result<(PathBuf, String), ConfigFault> {
        if let Some(named) = self.named {
            return self.named(named).map_err(|message| ConfigFault { place: named.place.clone(), message });
        }
        let wrong = |message: String| ConfigFault { place: self.place.clone(), message };
        for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
            if let Some(folder) = self.environment.variable(variable) {
                let python = python_in(&self.environment.absolute(folder));
                return python.map(|python| (python, variable.to_owned())).map_err(|gone| {
                    wrong(format!("{variable} is {folder}, but {gone}; activate another, or name one with --python"))
                });
            }
        }
        let beside = self.beside_target();
        if let Some(python) = self.own_environment().and_then(|folder| python_in(&folder).ok()) {
            // Tools such as pipx install a program into an environment of its own, which has no application.
            let lacks = self.module.is_some_and(|module| !has_module(&python, module));
            if beside.is_none() || !lacks {
                return Ok((python, "the environment that daemun is installed in".to_owned()));
            }
        }
        if let Some(folder) = beside {
            let reason = format!("{} beside the target", self.environment.shown(&folder));
            return python_in(&folder).map(|python| (python, reason)).map_err(|gone| {
                let folder = folder.display();
                wrong(format!("{folder} is beside the target, but {gone}; make it anew, or name another with --python"))
            });
        }
        self.on_path().ok_or_else(|| {
            wrong("no Python was found: no virtual environment beside the target and no python3 on PATH; name one with --python".to_owned())
        })
    }

    fn named(&self, named: &Named) -> Result<(PathBuf, String), String> {
        let python = if named.text.contains('/') || !is_program_name(&named.text) {
            let path = join(&named.folder, &named.text);
            if path.is_dir() { python_in(&path)? } else { path }
        } else {
            let found = self.path_folders().map(|folder| folder.join(&named.text)).find(|path| is_executable(path));
            found.ok_or_else(|| format!("there is no `{}` on PATH", named.text))?
        };
        match (is_executable(&python), python.symlink_metadata()) {
            (true, _) => Ok((python, named.reason.clone())),
            (false, Ok(_)) => Err(format!("{} is not a program that can be run", python.display())),
            (false, Err(_)) => Err(format!("there is no interpreter {}", python.display())),
        }
    }

    /// The virtual or conda environment in whose `bin` our own binary lies.
    fn own_environment(&self) -> Option<PathBuf> {
        let folder = self.environment.executable.as_deref()?.parent()?.parent()?;
        let marked = folder.join("pyvenv.cfg").is_file() || folder.join("conda-meta").is_dir();
        marked.then(|| folder.to_path_buf())
    }

    /// `.venv` or `venv` in the application's folder or the one above.
    fn beside_target(&self) -> Option<PathBuf> {
        let folders = [Some(self.directory), self.directory.parent()].into_iter().flatten();
        folders
            .flat_map(|folder| [".venv", "venv"].map(|name| folder.join(name)))
            .find(|folder| folder.join("pyvenv.cfg").is_file() || folder.join("bin/python").symlink_metadata().is_ok())
    }

    /// The first `python3` that has the module; if none seems to, the first.
    fn on_path(&self) -> Option<(PathBuf, String)> {
        let mut first = None;
        for python in self.path_folders().map(|folder| folder.join("python3")).filter(|path| is_executable(path)) {
            if let Some(module) = self.module.filter(|module| has_module(&python, module)) {
                return Some((python, format!("python3 on PATH that has `{module}`")));
            }
            first = first.or(Some(python));
        }
        first.map(|python| (python, "python3 on PATH".to_owned()))
    }

    fn path_folders(&self) -> impl Iterator<Item = PathBuf> {
        let path = self.environment.variable("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin");
        // An empty entry would be the current folder: no program is taken from there unasked.
        path.split(':').filter(|folder| !folder.is_empty()).map(|folder| self.environment.absolute(folder))
    }
}

/// The interpreter of a virtual environment; the error says which file is gone.
fn python_in(folder: &Path) -> Result<PathBuf, String> {
    let python = ["bin/python", "bin/python3"].map(|name| folder.join(name));
    let [first, _] = &python;
    match python.iter().find(|path| is_executable(path)) {
        Some(python) => Ok(python.clone()),
        None => Err(match first.read_link() {
            Ok(gone) => format!("its interpreter is gone ({} leads to {})", first.display(), gone.display()),
            Err(_) => format!("its interpreter is gone ({})", first.display()),
        }),
    }
}

/// Whether a module lies where this interpreter's prefix keeps packages.
fn has_module(python: &Path, module: &str) -> bool {
    let prefix = |path: &Path| path.parent().and_then(Path::parent).map(Path::to_path_buf);
    let own = prefix(python);
    // The interpreter that a virtual environment leads to has other packages.
    let is_virtual = own.as_ref().is_some_and(|own| own.join("pyvenv.cfg").is_file());
    let real = python.canonicalize().ok().filter(|_| !is_virtual).and_then(|real| prefix(&real));
    let prefixes = [own, real].into_iter().flatten();
    let mut libraries = Vec::new();
    for library in prefixes.flat_map(|prefix| [prefix.join("lib"), prefix.join("local/lib")]) {
        let entries = std::fs::read_dir(&library).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
        libraries.extend(named.map(|entry| entry.path()));
    }
    let packages =
        libraries.iter().flat_map(|library| ["site-packages", "dist-packages"].map(|name| library.join(name)));
    packages.into_iter().any(|folder| folder.join(module).is_dir() || folder.join(format!("{module}.py")).is_file())
}

fn is_program_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('.')
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// Files that can be run; a name that ends in `/` becomes a folder.
    fn tree(files: &[&str]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            let path = folder.path().join(name);
            fs::create_dir_all(if name.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
            if !name.ends_with('/') {
                fs::write(&path, "").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        folder
    }

    fn decided(folder: &TempDir, variables: &[(&str, &str)], named: Option<&str>) -> String {
        let root = folder.path().display().to_string();
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), value.replace("/T", &root))).collect();
        let executable = Some(folder.path().join("own/bin/daemun"));
        let environment = Environment { variables, directory: folder.path().to_path_buf(), executable, cores: 1 };
        let named = named.map(|text| Named {
            text: text.to_owned(),
            folder: folder.path().to_path_buf(),
            place: Place::named("--python"),
            reason: "--python".to_owned(),
        });
        let choice = Choice {
            named: named.as_ref(),
            environment: &environment,
            directory: &folder.path().join("project/src"),
            module: Some("django"),
            place: &Place::named("here"),
        };
        let told = match choice.decide() {
            Ok((python, reason)) => format!("{} ({reason})", python.display()),
            Err(fault) => fault.to_string(),
        };
        told.replace(&root, "/T")
    }

    #[test]
    fn the_first_rule_that_applies_names_the_interpreter() {
        let mut files = vec![
            "named/bin/python",
            "active/bin/python3",
            "own/pyvenv.cfg",
            "own/bin/python",
            "own/lib/python3.12/site-packages/django/",
            "project/src/.venv/bin/python",
            "project/venv/bin/python",
            "one/bin/python3",
            "two/bin/python3",
            "two/lib/python3.12/site-packages/django/",
        ];
        let path = ("PATH", "/T/one/bin::/T/two/bin");
        let active = [path, ("VIRTUAL_ENV", "/T/active")];
        let folder = tree(&files);
        assert_eq!(decided(&folder, &active, Some("named/bin/python")), "/T/named/bin/python (--python)");
        assert_eq!(decided(&folder, &active, Some("./named")), "/T/named/bin/python (--python)");
        assert_eq!(decided(&folder, &active, Some("python3")), "/T/one/bin/python3 (--python)");
        assert_eq!(decided(&folder, &active, None), "/T/active/bin/python3 (VIRTUAL_ENV)");
        assert_eq!(
            decided(&folder, &[path, ("CONDA_PREFIX", "/T/active")], None),
            "/T/active/bin/python3 (CONDA_PREFIX)"
        );
        for want in [
            "/T/own/bin/python (the environment that daemun is installed in)",
            "/T/project/src/.venv/bin/python (project/src/.venv beside the target)",
            "/T/project/venv/bin/python (project/venv beside the target)",
            "/T/two/bin/python3 (python3 on PATH that has `django`)",
            "/T/one/bin/python3 (python3 on PATH)",
        ] {
            assert_eq!(decided(&tree(&files), &[path], None), want);
            let gone: &[&str] = match want {
                _ if want.starts_with("/T/own") => &["own/pyvenv.cfg"],
                _ if want.contains("src") => &["project/src/.venv/bin/python"],
                _ if want.contains("venv") => &["project/venv/bin/python"],
                _ => &["two/lib/python3.12/site-packages/django/"],
            };
            files.retain(|file| !gone.contains(file));
        }
        assert_eq!(
            decided(&folder, &[("PATH", "/T/none")], None),
            "/T/own/bin/python (the environment that daemun is installed in)"
        );
    }

    #[test]
    fn the_environment_of_a_tool_does_not_hide_that_of_the_project() {
        let mut files = vec!["own/pyvenv.cfg", "own/bin/python", "project/src/.venv/bin/python"];
        let beside = "/T/project/src/.venv/bin/python (project/src/.venv beside the target)";
        assert_eq!(decided(&tree(&files), &[], None), beside);
        files.pop();
        let own = "/T/own/bin/python (the environment that daemun is installed in)";
        assert_eq!(decided(&tree(&files), &[], None), own);
    }

    #[test]
    fn an_interpreter_that_is_gone_is_named() {
        let folder = tree(&["project/.venv/pyvenv.cfg", "project/.venv/bin/", "bin/"]);
        let path = [("PATH", "/T/bin")];
        symlink("/none/python3.9", folder.path().join("project/.venv/bin/python")).unwrap();
        assert_eq!(
            decided(&folder, &path, None),
            "here: /T/project/.venv is beside the target, but its interpreter is gone (/T/project/.venv/bin/python leads to \
             /none/python3.9); make it anew, or name another with --python"
        );
        assert_eq!(
            decided(&folder, &[("VIRTUAL_ENV", "/T/away")], None),
            "here: VIRTUAL_ENV is /T/away, but its interpreter is gone (/T/away/bin/python); activate another, or name one with \
             --python"
        );
        assert_eq!(decided(&folder, &path, Some("python3")), "--python: there is no `python3` on PATH");
        assert_eq!(decided(&folder, &path, Some("./x")), "--python: there is no interpreter /T/x");
        assert_eq!(decided(&folder, &path, Some("project/.venv/pyvenv.cfg")), "/T/project/.venv/pyvenv.cfg (--python)");
        assert_eq!(
            decided(&tree(&["bin/"]), &path, None),
            "here: no Python was found: no virtual environment beside the target and no python3 on PATH; name one with --python"
        );
    }
}
