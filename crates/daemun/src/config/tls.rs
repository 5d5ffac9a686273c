//! `[[tls]]`: which certificate for which names.

use super::fault::{Place, Report};
use super::section::{Entry, Keys, Section};
use crate::listener::ListenerSettings;
use crate::tls::{ClientCertificates, Material, TlsSettings, is_name};

/// The keys of `[[tls]]`.
pub(super) const KEYS: Keys =
    Keys { known: &["hosts", "cert", "key", "ocsp", "client_ca", "client_certificates"], later: &["acme"] };

/// A table with the place that its faults are told at.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) settings: TlsSettings,
    pub(super) place: Place,
}

impl Draft {
    /// Reads a table.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let path = |key| section.entry(key).and_then(|entry| entry.path());
        let hosts = section.entry("hosts").map_or(Some(Vec::new()), |entry| hosts(&entry));
        let Some(entry) = section.entry("cert") else {
            // One that is not supported was told already.
            if section.entry("acme").is_none() {
                section.fault("a `cert` is missing: the file with the certificate, in PEM");
            }
            return None;
        };
        let cert = entry.path()?;
        let client_ca = path("client_ca");
        let asked = section.entry("client_certificates");
        if let (Some(entry), None) = (&asked, section.entry("client_ca")) {
            entry.fault("it needs a `client_ca`: the file with the authorities of clients, in PEM");
        }
        let usual = if client_ca.is_some() { ClientCertificates::Require } else { ClientCertificates::Off };
        let client_certificates = asked.and_then(|entry| entry.parse("`optional` or `require`", client_certificates));
        let settings = TlsSettings {
            hosts: hosts?,
            key: path("key").unwrap_or_else(|| cert.clone()),
            cert,
            ocsp: path("ocsp"),
            client_ca,
            client_certificates: client_certificates.unwrap_or(usual),
            origin: section.place().to_string(),
        };
        Some(Self { settings, place: entry.place() })
    }
}

fn hosts(entry: &Entry<'_>) -> Option<Vec<String>> {
    let mut hosts = Vec::new();
    for item in entry.items("a list of names such as [\"example.com\", \"*.example.com\"]")? {
        let Some(host) = item.name() else { continue };
        let host = host.to_ascii_lowercase();
        if !is_name(&host) {
            item.expected("a name such as \"example.com\" or \"*.example.com\"");
        } else if hosts.contains(&host) {
            item.fault(format!("`{host}` stands here twice"));
        } else {
            hosts.push(host);
        }
    }
    Some(hosts)
}

fn client_certificates(text: &str) -> Result<ClientCertificates, String> {
    match text {
        "optional" => Ok(ClientCertificates::Optional),
        "require" => Ok(ClientCertificates::Require),
        _ => Err(format!("expected `optional` or `require`, found {text:?}")),
    }
}

/// Tells listeners without a certificate, names that stand twice, and files that cannot be used.
pub(super) fn check(drafts: &[Draft], listeners: &[ListenerSettings], listen_place: Option<&Place>, report: &Report) {
    let secure = listeners.iter().find(|listener| listener.tls);
    match (secure, drafts.first()) {
        (Some(listener), None) => {
            let address = format!("https://{}", listener.address);
            let place = listen_place.cloned().unwrap_or_else(|| Place::named(&address));
            let message = format!(
                "{address} needs a certificate: write [[tls]] with `cert` and `key`, or give --tls-cert and --tls-key"
            );
            report.fault(place, message);
        }
        (None, Some(draft)) => {
            let message = "no listener is https: the certificate is not used; listen on \"https://0.0.0.0:443\"";
            report.warn(format!("{}: {message}", draft.place));
        }
        _ => {}
    }
    let mut seen: Vec<(&str, &Place)> = Vec::new();
    for draft in drafts {
        let hosts = draft.settings.hosts.iter().map(String::as_str);
        let none = draft.settings.hosts.is_empty().then_some("");
        for host in hosts.chain(none) {
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == host) {
                let what = if host.is_empty() { "a [[tls]] without `hosts`".to_owned() } else { format!("`{host}`") };
                report.fault(draft.place.clone(), format!("{what} stands already at {first}"));
            } else {
                seen.push((host, &draft.place));
            }
        }
        match Material::read(&draft.settings) {
            Ok(material) => material.warnings().into_iter().for_each(|warning| report.warn(warning)),
            Err(error) => report.fault(draft.place.clone(), error.to_string()),
        }
    }
}
