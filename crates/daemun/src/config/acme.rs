//! `acme` in `[[tls]]`, and `--domain`: certificates that an authority is asked for. And the folder that they are kept in.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::fault::Report;
use super::section::{Entry, Keys};
use super::tls::Draft;
use crate::listener::ListenerSettings;
use crate::tls::{AcmeSettings, ChallengeWay, Source, TlsSettings};

const ACME: Keys = Keys { known: &["email", "directory", "ca_file", "challenge", "http_port", "tls_port"], later: &[] };

/// Where a system keeps what services must find again.
const SYSTEM_STATE: &str = "/var/lib/daemun";

/// `true`, or a table.
pub(super) fn read(entry: &Entry<'_>) -> Option<AcmeSettings> {
    const WHAT: &str = "`true`, or a table such as { email = \"me@example.com\" }";
    let mut settings = AcmeSettings::new();
    if !entry.is_table() {
        return entry.boolean()?.then_some(settings);
    }
    let section = entry.section("`acme`", WHAT, ACME)?;
    settings.email = section.entry("email").and_then(|entry| entry.parse("an address for mail", email));
    let found = section
        .entry("directory")
        .and_then(|entry| entry.parse("`staging` or the https address of an authority's directory", directory));
    settings.directory = found.unwrap_or(settings.directory);
    settings.ca_file = section.entry("ca_file").and_then(|entry| entry.path());
    settings.challenge =
        section.entry("challenge").and_then(|entry| entry.parse("`http-01` or `tls-alpn-01`", challenge));
    for (key, place) in [("http_port", &mut settings.http_port), ("tls_port", &mut settings.tls_port)] {
        let found = section.entry(key).and_then(|entry| entry.whole(1, 65_535));
        *place = found.map_or(*place, |port| port as u16);
    }
    Some(settings)
}

/// `staging`, or an address.
pub(super) fn directory(text: &str) -> Result<String, String> {
    match text {
        "staging" => Ok(AcmeSettings::STAGING.to_owned()),
        "production" => Ok(AcmeSettings::DIRECTORY.to_owned()),
        _ if text
            .strip_prefix("https://")
            .is_some_and(|rest| rest.contains('.') || rest.contains(':') || rest.starts_with("localhost")) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "expected `staging` or an address such as \"https://authority.example/directory\", found {text:?}"
        )),
    }
}

/// An address that mail can go to.
pub(super) fn email(text: &str) -> Result<String, String> {
    let is_fit = text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_fit {
        Ok(text.to_owned())
    } else {
        Err(format!("expected an address such as \"me@example.com\", found {text:?}"))
    }
}

fn challenge(text: &str) -> Result<ChallengeWay, String> {
    match text {
        "http-01" => Ok(ChallengeWay::Http),
        "tls-alpn-01" => Ok(ChallengeWay::TlsAlpn),
        "dns-01" => {
            Err("`dns-01` is not supported: `http-01` or `tls-alpn-01`; for wildcards give `cert` and `key`".into())
        }
        _ => Err(format!("expected `http-01` or `tls-alpn-01`, found {text:?}")),
    }
}

/// The default of `state` in `[server]`.
pub(super) fn state(environment: &Environment) -> Option<PathBuf> {
    // systemd gives several with colons between them.
    let given = environment.variable("STATE_DIRECTORY").and_then(|folders| folders.split(':').next());
    if let Some(given) = given {
        return Some(environment.absolute(given));
    }
    let system = Path::new(SYSTEM_STATE);
    let writable = || rustix::fs::access(system, rustix::fs::Access::WRITE_OK).is_ok();
    if rustix::process::geteuid().is_root() || writable() {
        return Some(system.to_path_buf());
    }
    let own = environment.variable("XDG_STATE_HOME").filter(|folder| folder.starts_with('/')).map(PathBuf::from);
    let home = || environment.variable("HOME").map(|home| Path::new(home).join(".local/state"));
    Some(own.or_else(home)?.join("daemun"))
}

/// Says where certificates that are not put there by an operator are kept; the file is named after the first name.
pub(super) fn place(settings: &mut TlsSettings, state: &Path) {
    let name = settings.hosts.first().map_or("localhost", String::as_str).replace('*', "_");
    let folder = match &settings.source {
        Source::Files => return,
        Source::Authority(acme) => state.join("acme").join(acme.folder()),
        Source::SelfMade => state.join("self-made"),
    };
    settings.cert = folder.join(format!("{name}.pem"));
    settings.key.clone_from(&settings.cert);
}

/// Tells what would keep an authority from being shown that the names lead here.
pub(super) fn check(draft: &Draft, listeners: &[ListenerSettings], report: &Report) {
    let Source::Authority(acme) = &draft.settings.source else { return };
    let fault = |message: String| report.fault(draft.place.clone(), message);
    if draft.settings.hosts.is_empty() {
        return fault("`acme` needs `hosts`: the names that the certificate is to be for".to_owned());
    }
    for host in &draft.settings.hosts {
        if host.starts_with("*.") {
            fault(format!(
                "`{host}`: authorities give wildcards for a proof by DNS only: write every name, or give `cert` and `key`"
            ));
        } else if !host.contains('.') && [AcmeSettings::DIRECTORY, AcmeSettings::STAGING].contains(&&*acme.directory) {
            fault(format!("`{host}` is no name of the public DNS: no public authority gives a certificate for it"));
        }
    }
    let (plain, secure) = (listeners.iter().any(|one| !one.tls), listeners.iter().any(|one| one.tls));
    match acme.challenge {
        Some(ChallengeWay::Http) if !plain => {
            fault("`http-01` needs a plain listener that port 80 leads to: listen on \"0.0.0.0:80\" too".to_owned());
        }
        Some(ChallengeWay::TlsAlpn) if !secure => {
            fault(
                "`tls-alpn-01` needs an https listener that port 443 leads to: listen on \"https://0.0.0.0:443\" too"
                    .to_owned(),
            );
        }
        _ => {}
    }
    if let Some(path) = &acme.ca_file {
        let text = std::fs::read_to_string(path).map_err(|error| format!("`ca_file` {}: {error}", path.display()));
        match text {
            Err(message) => fault(message),
            Ok(text) if !text.contains("-----BEGIN CERTIFICATE-----") => {
                fault(format!("`ca_file` {} holds no certificate in PEM", path.display()));
            }
            Ok(_) => {}
        }
    }
}
