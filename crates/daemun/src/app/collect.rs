//! Runs an application's `collectstatic` before it is served.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use super::settings::AppSettings;
use super::zygote::environment;
use crate::process::{self, Account};
use crate::sys::ChildSetup;

/// What the interpreter runs: the WSGI module is imported first, so that the settings are those that it chooses. Its
/// first argument is that module, its second the application's folder; it ends when whoever holds the other end of
/// descriptor 3 does.
const PROGRAM: &str = r#"
import os, sys, threading
module, directory = sys.argv[1:]
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
    call_command("collectstatic", interactive=False)
except (CommandError, ImproperlyConfigured) as error:
    sys.exit("collectstatic: %s" % error)
"#;

/// Starts it in the application's environment, as its user; its process id. All that it says goes to standard error.
pub fn start(settings: &AppSettings, account: Option<&Account>, lifeline: OwnedFd) -> std::io::Result<i32> {
    let module = settings.mounts.first().map_or("", |mount| mount.callable.split(':').next().unwrap_or_default());
    let mut command = Command::new(&settings.python);
    command.args(["-u", "-c", PROGRAM, module]).arg(&settings.directory).current_dir(&settings.directory);
    // Standard output is for the access log.
    command.stdout(std::io::stderr().as_fd().try_clone_to_owned()?);
    environment(&mut command, settings, account);
    let setup = ChildSetup {
        descriptors: vec![lifeline],
        identity: account.map(|account| account.identity.clone()),
        // A terminal's Ctrl-C reaches us, and we end it.
        own_group: true,
        ..ChildSetup::default()
    };
    process::spawn(command, setup)
}
