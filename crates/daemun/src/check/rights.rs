//! Who may read and change what: the front, and the users of applications where we are root.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Examination;
use crate::codes::Finding;
use crate::config::{Configuration, Environment, HandlerSettings, RouteSettings};
use crate::process::Account;
use crate::supervisor::identity;

/// Which folders of static files the front cannot enter: where we are root, it has a user of its own. What lies above
/// them does not matter, since it gets them opened.
pub fn closed_to_the_front(configuration: &Configuration) -> Vec<String> {
    if !identity::is_root() {
        return Vec::new();
    }
    let closed = |path: &Path| {
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        let path = path.display();
        (mode & 0o001 == 0).then(|| {
            format!(
                "{path} has mode {mode:o}, and the front, which has a user of its own, cannot enter it: every file in \
                 it will be 403; run chmod o+x {path} [D407]"
            )
        })
    };
    let routes = configuration.routes.iter();
    let told = |route: &RouteSettings| match &route.handler {
        HandlerSettings::Static(settings) => {
            let place = format!("{}: ", route.rule.origin);
            settings.roots.iter().filter_map(|root| closed(&root.path)).map(|text| place.clone() + &text).collect()
        }
        _ => Vec::new(),
    };
    let sheets = configuration.routes.iter().filter_map(|route| {
        let xslt = route.filters.xslt.as_ref()?;
        Some(format!("{}: {}", xslt.origin, closed(&xslt.value.root)?))
    });
    let sent = configuration.apps.iter().flat_map(|app| app.sendfile.iter().map(move |(_, path)| (&app.name, path)));
    let sent = sent.filter_map(|(app, path)| Some(format!("`sendfile` of [app.{app}]: {}", closed(path)?)));
    let sent_for_programs =
        sent_for_programs(configuration).filter_map(|(origin, path)| Some(format!("{origin}: {}", closed(path)?)));
    routes.flat_map(told).chain(sheets).chain(sent).chain(sent_for_programs).collect()
}

/// The folders that CGI programs may have files sent from, with the places of their routes.
pub fn sent_for_programs(configuration: &Configuration) -> impl Iterator<Item = (&str, &PathBuf)> {
    configuration.routes.iter().flat_map(|route| {
        let sendfile = match &route.handler {
            HandlerSettings::Cgi(settings) => &settings.sendfile[..],
            _ => &[],
        };
        sendfile.iter().map(|(_, path)| (&*route.rule.origin, path))
    })
}

/// Whether what root runs can be changed by a user of an application.
pub(super) fn check(
    configuration: &Configuration,
    accounts: &[Account],
    environment: &Environment,
    examination: &mut Examination,
) {
    let codes = ["D407", "D408"];
    if !identity::is_root() {
        return examination.skip(&codes, "daemun was not started as root");
    }
    examination.run(&codes);
    examination.lines(closed_to_the_front(configuration));
    let ours: Vec<&PathBuf> = configuration.files.iter().chain(&environment.executable).collect();
    for account in accounts.iter().filter(|account| account.identity.user != 0) {
        for path in &ours {
            let Some(open) = path.ancestors().find(|part| can_change(account, part)) else { continue };
            let message = format!(
                "{} can be changed by the user {} of an application, and root runs it or does what it says",
                path.display(),
                account.name
            );
            let shown = open.display();
            let found = Finding::new("D408", message).at(path.display().to_string(), None);
            examination.add(found.mend(format!("run chown root {shown} and chmod go-w {shown}")));
        }
    }
}

/// Whether this account may write to a file, or put another in its place.
fn can_change(account: &Account, path: &Path) -> bool {
    let Ok(found) = std::fs::metadata(path) else { return false };
    let mode = found.permissions().mode();
    let identity = &account.identity;
    if found.uid() == identity.user {
        return true;
    }
    // In a folder with the sticky bit one cannot replace the files of others.
    if found.is_dir() && mode & 0o1000 != 0 {
        return false;
    }
    let is_group = found.gid() == identity.group || identity.groups.contains(&found.gid());
    mode & 0o002 != 0 || (is_group && mode & 0o020 != 0)
}
