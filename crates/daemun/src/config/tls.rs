//! `[[tls]]`: which certificate for which names.

use std::path::{Path, PathBuf};

use super::acme;
use super::fault::{Place, Report};
use super::section::{Entry, Keys, Section};
use crate::listener::ListenerSettings;
use crate::tls::{AcmeSettings, ClientCertificates, Material, Source, TlsSettings, is_name};

/// The keys of `[[tls]]`.
pub(super) const KEYS: Keys =
    Keys { known: &["hosts", "cert", "key", "ocsp", "client_ca", "client_certificates", "acme"], later: &[] };

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
        let (entry, cert, source) = match (section.entry("cert"), section.entry("acme")) {
            (Some(entry), None) => {
                let cert = entry.path()?;
                (entry, cert, Source::Files)
            }
            (given, Some(entry)) => {
                for other in given.iter().chain(&section.entry("key")).chain(&section.entry("ocsp")) {
                    other.fault("`acme` brings certificate and key: give the one or the other");
                }
                let acme = acme::read(&entry)?;
                (entry, PathBuf::new(), Source::Authority(acme))
            }
            (None, None) => {
                section.fault("a `cert` is missing: the file with the certificate, in PEM; or `acme`");
                return None;
            }
        };
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
            source,
            origin: section.place().to_string(),
        };
        Some(Self { settings, place: entry.place() })
    }

    /// One that nobody wrote a table for.
    pub(super) fn wished(hosts: Vec<String>, source: Source, place: Place) -> Self {
        let settings = TlsSettings {
            hosts,
            cert: PathBuf::new(),
            key: PathBuf::new(),
            ocsp: None,
            client_ca: None,
            client_certificates: ClientCertificates::Off,
            source,
            origin: place.to_string(),
        };
        Self { settings, place }
    }

    /// What is asked of an authority, where one is asked.
    pub(super) fn acme(&mut self) -> Option<&mut AcmeSettings> {
        match &mut self.settings.source {
            Source::Authority(acme) => Some(acme),
            Source::Files | Source::SelfMade => None,
        }
    }
}

/// Says where certificates are kept that are not put there by an operator.
pub(super) fn keep(drafts: &mut [Draft], state: Option<&Path>, report: &Report) {
    for draft in drafts.iter_mut().filter(|draft| draft.settings.source != Source::Files) {
        match state {
            Some(state) => acme::place(&mut draft.settings, state),
            None => report.fault(
                draft.place.clone(),
                "there is no folder to keep the certificate in: set `state` in [server], or the variable HOME",
            ),
        }
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
                "{address} needs a certificate: write [[tls]] with `cert` and `key` or `acme`, or give --tls-cert and \
                 --tls-key, or --domain"
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
        acme::check(draft, listeners, report);
        // One that is asked for or made may not be there yet.
        if draft.settings.source != Source::Files {
            continue;
        }
        match Material::read(&draft.settings) {
            Ok(material) => material.warnings().into_iter().for_each(|warning| report.warn(warning)),
            Err(error) => report.fault(draft.place.clone(), error.to_string()),
        }
    }
}
