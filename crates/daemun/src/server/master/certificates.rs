//! Certificates and keys: read here, where files may be read, watched, and handed to the front.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::certifying::Certifying;
use super::events::Event;
use super::{Master, Phase};
use crate::codes::{Finding, Severity};
use crate::config::Configuration;
use crate::listener::{Address, ListenerSettings};
use crate::server::plan::ToFront;
use crate::supervisor::state;
use crate::tls::{self, Material, Source, Stamp, TlsSettings};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A self-made certificate that ends sooner is made anew.
const SOON: i64 = 30 * 24 * 3600;

/// The certificates of a configuration.
#[derive(Default)]
pub(super) struct Certificates(Vec<Held>);

/// What was read for one `[[tls]]` table.
pub(super) struct Held {
    pub(super) settings: TlsSettings,
    /// `None` where an authority has not given it yet.
    pub(super) material: Option<Material>,
    /// The files when they were read, well or not.
    read: Stamp,
    /// The files at the last look. Certificate and key are seldom replaced in one step: only what is still the same a
    /// look later is read.
    seen: Stamp,
}

impl Certificates {
    /// Reads all of them, or says what is wrong with the first that cannot be used. What the server makes itself is made.
    pub(super) fn read(configuration: &Configuration) -> Result<Self, String> {
        let read = |settings: &TlsSettings| {
            // Before reading: what changes in between is seen at the next look.
            let stamp = Stamp::of(settings);
            let material = match &settings.source {
                Source::Files => {
                    Some(Material::read(settings).map_err(|error| format!("{}: {error}", settings.origin))?)
                }
                // Where it is not there yet, or no longer valid, another is asked for.
                Source::Authority(_) => Material::read(settings).ok(),
                Source::SelfMade => Some(self_made(settings, &configuration.server.listeners)?),
            };
            Ok(Held { settings: settings.clone(), material, seen: stamp.clone(), read: stamp })
        };
        configuration.tls.iter().map(read).collect::<Result<_, String>>().map(Self)
    }

    /// What the front is told, besides what an authority wants to see.
    pub(super) fn materials(&self, certifying: &Certifying) -> Vec<Material> {
        let held = self.0.iter().filter_map(|held| held.material.clone());
        held.chain(certifying.proofs().cloned()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.0.iter()
    }

    /// Replaces what is held for the table that is kept in this file.
    pub(super) fn renew(&mut self, file: &Path, material: &Material) {
        for held in self.0.iter_mut().filter(|held| held.settings.cert == file) {
            held.material = Some(material.clone());
        }
    }
}

/// The certificate that was made before, or one that is made now.
fn self_made(settings: &TlsSettings, listeners: &[ListenerSettings]) -> Result<Material, String> {
    let ends = |material: &Material| material.facts().map_or(0, |facts| facts.not_after);
    let mut names = settings.hosts.clone();
    if names.is_empty() {
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        let addresses = listeners.iter().filter_map(|listener| match listener.address {
            Address::Tcp(address) if !address.ip().is_unspecified() => Some(address.ip().to_string()),
            _ => None,
        });
        let missing: Vec<String> = addresses.filter(|address| !names.contains(address)).collect();
        names.extend(missing);
    }
    let all = TlsSettings { hosts: names.clone(), ..settings.clone() };
    let before = Material::read(&all).ok().filter(|found| found.uncovered().is_empty() && ends(found) > now() + SOON);
    if before.is_none() {
        let text = tls::self_made(&names).map_err(|error| format!("{}: {error}", settings.origin))?;
        let path = &settings.cert;
        state::keep(path, text.as_bytes()).map_err(|error| {
            format!("{}: the self-made certificate cannot be kept in {}: {error}", settings.origin, path.display())
        })?;
    }
    Material::read(settings).map_err(|error| format!("{}: {error}", settings.origin))
}

/// What is to be said before requests are answered: certificates that browsers warn of, and a folder that does not last.
pub(super) fn warnings(configuration: &Configuration) -> Vec<String> {
    let mut told = Vec::new();
    for settings in configuration.tls.iter().filter(|settings| settings.source == Source::SelfMade) {
        let file = settings.cert.display();
        told.push(format!("the certificate of https is self-made ({file}): browsers warn of it [D414]"));
    }
    let asks = configuration.tls.iter().any(|settings| matches!(settings.source, Source::Authority(_)));
    if let Some(folder) = configuration.server.state.as_deref().filter(|_| asks)
        && let Some(what) = state::fleeting(folder)
    {
        let message = format!(
            "{} lies on {what}: certificates are lost with it, and an authority gives few again",
            folder.display()
        );
        let mut finding = Finding::new("D413", message).mend("state = \"/a/volume\" in [server]");
        finding.severity = Severity::Warning;
        told.push(finding.told());
    }
    told
}

/// Now, in seconds since 1970.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

impl Master {
    /// Begins to look at the files, once there are any.
    pub(super) fn watch_certificates(&mut self) {
        if !self.certificates.is_empty() && !std::mem::replace(&mut self.watches_certificates, true) {
            self.later(LOOK, Event::LookForCertificates);
        }
    }

    /// Reads what was replaced. What cannot be used is told, and the one before is shown on.
    pub(super) async fn look_for_certificates(&mut self) {
        self.watches_certificates = false;
        if self.phase != Phase::Running {
            return;
        }
        self.watch_certificates();
        let mut changed = false;
        for held in &mut self.certificates.0 {
            let now = Stamp::of(&held.settings);
            let is_settled = std::mem::replace(&mut held.seen, now.clone()) == now;
            if !is_settled || held.read == now {
                continue;
            }
            held.read = now;
            let origin = &held.settings.origin;
            match Material::read(&held.settings) {
                Ok(material) if held.material.as_ref() == Some(&material) => {}
                Ok(material) => {
                    for warning in material.warnings() {
                        self.errors.warning(format_args!("{warning}"));
                    }
                    held.material = Some(material);
                    changed = true;
                    let cert = held.settings.cert.display();
                    self.errors.info(format_args!("{origin}: the certificate in {cert} was read anew"));
                }
                Err(error) => {
                    self.errors.error(format_args!("{origin}: {error}; the certificate before is shown on"));
                }
            }
        }
        if changed {
            self.show_certificates().await;
        }
    }

    /// Tells the front what to show.
    pub(super) async fn show_certificates(&self) {
        self.tell_front(ToFront::Certificates(self.certificates.materials(&self.certifying))).await;
    }
}
