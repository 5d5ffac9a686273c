//! Starts an application's interpreter for something else than serving: to be asked, or to run Django's own command.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};

use super::settings::AppSettings;
use super::zygote::environment;
use crate::process::{self, Account};
use crate::sys::ChildSetup;

/// Django's own command, for what only it can do. Its arguments are the WSGI module, which is imported first, so that
/// the settings are those that it chooses, the application's folder, and the command's options as JSON; it ends when
/// whoever holds the other end of descriptor 3 does.
const DJANGO: &str = r#"
import json, os, sys, threading
module, directory, options = sys.argv[1:]
del sys.argv[1:]
sys.path[0] = directory
def watch():
    os.read(3, 1)
    os._exit(1)
os.set_inheritable(3, False)
threading.Thread(target=watch, daemon=True).start()
__import__(module)
import django
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
django.setup()
try:
    call_command("collectstatic", interactive=False, **json.loads(options))
except (CommandError, ImproperlyConfigured) as error:
    sys.exit("collectstatic: %s" % error)
"#;

/// Runs `program` in the application's environment with its WSGI module, its folder and `arguments`. It finds
/// `descriptors` as 3, 4, …, and what it prints goes to standard error.
pub fn run(
    settings: &AppSettings,
    program: &str,
    arguments: &[&str],
    descriptors: Vec<OwnedFd>,
) -> std::io::Result<Child> {
    run_as(settings, None, program, arguments, descriptors)
}

/// The same as another user.
pub fn run_as(
    settings: &AppSettings,
    account: Option<&Account>,
    program: &str,
    arguments: &[&str],
    descriptors: Vec<OwnedFd>,
) -> std::io::Result<Child> {
    let module = settings.mounts.first().map_or("", |mount| mount.callable.split(':').next().unwrap_or_default());
    let mut command = Command::new(&settings.python);
    command.args(["-u", "-c", program, module]).arg(&settings.directory).args(arguments);
    command.current_dir(&settings.directory);
    // Standard output is the caller's.
    command.stdout(std::io::stderr().as_fd().try_clone_to_owned()?);
    environment(&mut command, settings, account);
    let identity = account.map(|account| account.identity.clone());
    process::start(command, ChildSetup { descriptors, identity, ..ChildSetup::default() })
}

/// Runs Django's own `collectstatic` with these options.
pub fn run_django(settings: &AppSettings, options: &str, lifeline: OwnedFd) -> std::io::Result<Child> {
    run(settings, DJANGO, &[options], vec![lifeline])
}

/// Starts this program once more, in `role`, in the application's environment and as its user. It finds `descriptors`
/// as 3, 4, ….
#[expect(clippy::needless_pass_by_value, reason = "the rest of what is being made; callers build it in place")]
pub fn start_role(
    settings: &AppSettings,
    role: &str,
    account: Option<&Account>,
    descriptors: Vec<OwnedFd>,
    setup: ChildSetup,
) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(role);
    environment(&mut command, settings, account);
    let identity = account.map(|account| account.identity.clone());
    process::start(command, ChildSetup { descriptors, identity, ..setup })
}
