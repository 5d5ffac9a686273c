//! Certificates and keys: read here, where files may be read, watched, and handed to the front.

use std::time::Duration;

use super::events::Event;
use super::{Master, Phase};
use crate::server::plan::ToFront;
use crate::tls::{Material, Stamp, TlsSettings};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The certificates of a configuration.
#[derive(Default)]
pub(super) struct Certificates(Vec<Held>);

/// What was read for one `[[tls]]` table.
struct Held {
    settings: TlsSettings,
    material: Material,
    /// The files when they were read, well or not.
    read: Stamp,
    /// The files at the last look. Certificate and key are seldom replaced in one step: only what is still the same a
    /// look later is read.
    seen: Stamp,
}

impl Certificates {
    /// Reads all of them, or says what is wrong with the first that cannot be used.
    pub(super) fn read(settings: &[TlsSettings]) -> Result<Self, String> {
        let read = |settings: &TlsSettings| {
            // Before reading: what changes in between is seen at the next look.
            let stamp = Stamp::of(settings);
            let material = Material::read(settings).map_err(|error| format!("{}: {error}", settings.origin))?;
            Ok(Held { settings: settings.clone(), material, seen: stamp.clone(), read: stamp })
        };
        settings.iter().map(read).collect::<Result<_, String>>().map(Self)
    }

    /// What the front is told.
    pub(super) fn materials(&self) -> Vec<Material> {
        self.0.iter().map(|held| held.material.clone()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
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
                Ok(material) if material == held.material => {}
                Ok(material) => {
                    for warning in material.warnings() {
                        self.errors.warning(format_args!("{warning}"));
                    }
                    held.material = material;
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
            self.tell_front(ToFront::Certificates(self.certificates.materials())).await;
        }
    }
}
