//! Certificates from authorities: what is due, the certifier that sees to it, and what came of it.
//!
//! One errand at a time: an authority counts what it is asked, and a start with twenty names is no hurry.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::certificates::now;
use super::events::{self, Event};
use super::{Master, Phase};
use crate::certifier::{
    Account, CERTIFIER_ROLE, ERRAND_DEADLINE, Errand, FromCertifier, Outcome, Proof, ToCertifier, schedule,
};
use crate::config::Configuration;
use crate::control::message::CertificateStatus;
use crate::process::{self, Channel};
use crate::server::plan::ToFront;
use crate::supervisor::{identity, state};
use crate::sys::{self, ChildSetup, Ended};
use crate::tls::{AcmeSettings, ChallengeWay, Key, Material, Source, TlsSettings};

/// How long after a start an authority is first asked whether it wants certificates renewed that are not due.
const FIRST_LOOK: i64 = 5;

/// The longest wait by one timer: a machine may sleep, and clocks are set.
const LONGEST_WAIT: i64 = 600;

/// How long an errand waits where an upgrade is under way, whose two fronts share the listeners.
const UPGRADING: Duration = Duration::from_secs(1);

/// Descriptors that a certifier may have open.
const OPEN_FILES: u64 = 64;

/// What is known of certificates from authorities.
#[derive(Default)]
pub(super) struct Certifying {
    wants: Vec<Want>,
    running: Option<Running>,
    /// Errands so far.
    errands: u64,
    /// The timer that counts; those before it are void.
    timer: u64,
    /// What an authority wants to see.
    proofs: Vec<Proof>,
    /// What is to be told once the front shows the certificate of this errand.
    news: Option<(u64, String)>,
    /// Processes that have not been reaped.
    pids: Vec<i32>,
}

/// A certificate that is asked for and renewed.
struct Want {
    settings: TlsSettings,
    acme: AcmeSettings,
    /// When something is to be done, in seconds since 1970.
    due: i64,
    /// When a certificate is to be asked for in any case; before it the authority is only asked whether it wants that.
    order_at: i64,
    failures: u32,
    /// Why the last try has failed.
    reason: Option<String>,
}

/// The certifier that is there.
struct Running {
    errand: u64,
    pid: i32,
    /// What it is for.
    file: PathBuf,
    channel: Channel<ToCertifier, FromCertifier>,
}

/// What an authority has said about asking again, kept so that a restart does not forget it.
#[derive(Deserialize, Serialize)]
struct Note {
    until: i64,
    reason: String,
}

// === impl Certifying ===

impl Certifying {
    /// All that are there.
    pub(super) fn pids(&self) -> &[i32] {
        &self.pids
    }

    /// Certificates by which an authority sees that names lead here.
    pub(super) fn proofs(&self) -> impl Iterator<Item = &Material> {
        self.proofs.iter().filter_map(|proof| match proof {
            Proof::Tls(material) => Some(&**material),
            Proof::Http { .. } => None,
        })
    }

    fn tokens(&self) -> Vec<(String, String)> {
        let token = |proof: &Proof| match proof {
            Proof::Http { token, text } => Some((token.clone(), text.clone())),
            Proof::Tls(_) => None,
        };
        self.proofs.iter().filter_map(token).collect()
    }

    fn want(&mut self, file: &Path) -> Option<&mut Want> {
        self.wants.iter_mut().find(|want| want.settings.cert == file)
    }

    /// Why there is no certificate in this file, or it was not renewed; and when that is tried again.
    fn trouble(&self, file: &Path) -> (Option<String>, Option<i64>) {
        let Some(want) = self.wants.iter().find(|want| want.settings.cert == file) else { return (None, None) };
        (want.reason.clone(), Some(want.due))
    }
}

/// Makes the folders for what authorities give.
pub(super) fn prepare(configuration: &Configuration) -> Result<(), String> {
    for settings in configuration.tls.iter().filter(|settings| matches!(settings.source, Source::Authority(_))) {
        let Some(folder) = settings.cert.parent() else { continue };
        state::prepare(folder).map_err(|error| {
            let (origin, folder) = (&settings.origin, folder.display());
            format!("{origin}: certificates cannot be kept in {folder}: {error}; set `state` in [server]")
        })?;
    }
    Ok(())
}

/// Names as they are told.
fn names(settings: &TlsSettings) -> String {
    settings.hosts.join(", ")
}

fn note_of(file: &Path) -> PathBuf {
    file.with_extension("json")
}

fn account_of(file: &Path) -> PathBuf {
    file.with_file_name("account.json")
}

impl Master {
    /// The configuration is another: what is wanted, and when.
    pub(super) async fn plan_certificates(&mut self) {
        let mut before = std::mem::take(&mut self.certifying.wants);
        for held in self.certificates.iter() {
            let Source::Authority(acme) = &held.settings.source else { continue };
            let known = before.iter().position(|want| {
                (&want.settings.hosts, &want.settings.cert, &want.acme)
                    == (&held.settings.hosts, &held.settings.cert, acme)
            });
            let known = known.map(|at| before.swap_remove(at));
            let whole = held.material.as_ref().filter(|material| material.uncovered().is_empty());
            let facts = whole.and_then(Material::facts);
            let mut want = Want {
                settings: held.settings.clone(),
                acme: acme.clone(),
                due: now(),
                order_at: facts.map_or(0, |facts| schedule::renewal(facts.not_before, facts.not_after)),
                failures: 0,
                reason: None,
            };
            if want.order_at > now() {
                // What was agreed upon with the authority stands.
                want.due = known.as_ref().map_or(want.order_at.min(now() + FIRST_LOOK), |known| known.due);
            }
            let note =
                state::recall(&note_of(&want.settings.cert)).and_then(|text| serde_json::from_str::<Note>(&text).ok());
            if let Some(note) = note.filter(|note| note.until > now()) {
                want.due = want.due.max(note.until);
                want.reason = Some(note.reason);
                want.failures = known.map_or(1, |known| known.failures);
            }
            if held.material.is_none() {
                let origin = &want.settings.origin;
                let why = want.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
                self.errors.info(format_args!(
                    "{origin}: there is no certificate for {} yet{why}; until there is, they are served by http",
                    names(&want.settings)
                ));
            }
            self.certifying.wants.push(want);
        }
        let file = self.certifying.running.as_ref().map(|running| running.file.clone());
        if file.is_some_and(|file| self.certifying.want(&file).is_none()) {
            self.end_errand().await;
        }
        self.certify().await;
    }

    /// Starts what is due, or a timer for what will be.
    pub(super) async fn certify(&mut self) {
        self.certifying.timer += 1;
        if self.phase != Phase::Running || self.certifying.running.is_some() {
            return;
        }
        let Some(next) = self.certifying.wants.iter().min_by_key(|want| want.due) else { return };
        let wait = next.due - now();
        let again = Event::Certify(self.certifying.timer);
        if wait > 0 {
            return self.later(Duration::from_secs(wait.min(LONGEST_WAIT) as u64), again);
        }
        if self.old.is_some() {
            return self.later(UPGRADING, again);
        }
        let (file, names) = (next.settings.cert.clone(), names(&next.settings));
        if let Err(error) = self.start_certifier(&file).await {
            self.errors.error(format_args!("cannot start the certifier for {names}: {error}"));
            self.errand_failed(&file, (error.to_string(), true, None));
            let again = Event::Certify(self.certifying.timer);
            self.later(Duration::from_secs(1), again);
        }
    }

    /// The timer is over.
    pub(super) async fn certify_timer(&mut self, timer: u64) {
        if timer == self.certifying.timer {
            self.certify().await;
        }
    }

    async fn start_certifier(&mut self, file: &Path) -> std::io::Result<()> {
        let Some(errand) = self.errand(file)? else { return Ok(()) };
        let (mut channel, theirs) = Channel::<ToCertifier, FromCertifier>::pair()?;
        let mut command = Command::new(&self.program);
        // Standard output may be the access log.
        command.arg(CERTIFIER_ROLE).env_clear().stdout(Stdio::null());
        let setup = ChildSetup {
            descriptors: vec![theirs],
            identity: identity::is_root().then(process::account::unused_identity),
            open_files: Some(OPEN_FILES),
            no_new_privileges: true,
            own_group: true,
        };
        let pid = process::spawn(command, setup)?;
        self.certifying.errands += 1;
        let number = self.certifying.errands;
        let sender = channel.sender();
        let events = self.events.clone();
        tokio::spawn(async move {
            loop {
                let message = channel.receive().await.ok().flatten().map(|(message, _)| message);
                let last = message.is_none();
                if events.send(Event::Certifier(number, message)).is_err() || last {
                    return;
                }
            }
        });
        // One that is gone is told by the end of its channel.
        let _ = sender.send(&ToCertifier::Errand(Box::new(errand)), &[]).await;
        self.certifying.pids.push(pid);
        self.certifying.running = Some(Running { errand: number, pid, file: file.to_path_buf(), channel: sender });
        events::later(&self.events, ERRAND_DEADLINE + Duration::from_secs(10), Event::ErrandOverdue(number));
        Ok(())
    }

    fn errand(&mut self, file: &Path) -> std::io::Result<Option<Errand>> {
        let current = self.certificates.iter().find(|held| held.settings.cert == file);
        let current = current.and_then(|held| held.material.as_ref()).map(|material| material.chain.clone());
        let listeners = &self.configuration.server.listeners;
        let (plain, secure) = (listeners.iter().any(|one| !one.tls), listeners.iter().any(|one| one.tls));
        let Some(want) = self.certifying.want(file) else { return Ok(None) };
        let ways =
            [(ChallengeWay::Http, want.acme.http_port, plain), (ChallengeWay::TlsAlpn, want.acme.tls_port, secure)];
        let is_wanted = |way| want.acme.challenge.is_none_or(|wanted| wanted == way);
        let ways = ways.into_iter().filter(|(way, _, is_there)| *is_there && is_wanted(*way));
        let authorities = want.acme.ca_file.as_ref().map(std::fs::read_to_string).transpose()?;
        let account = state::recall(&account_of(file)).and_then(|text| serde_json::from_str(&text).ok());
        Ok(Some(Errand {
            names: want.settings.hosts.clone(),
            directory: want.acme.directory.clone(),
            email: want.acme.email.clone(),
            authorities,
            ways: ways.map(|(way, port, _)| (way, port)).collect(),
            account,
            is_due: want.order_at <= now(),
            current,
        }))
    }

    /// A certifier's word; `None` is its end.
    pub(super) async fn certifier_said(&mut self, errand: u64, message: Option<FromCertifier>) {
        let Some(running) = self.certifying.running.as_ref().filter(|running| running.errand == errand) else { return };
        let file = running.file.clone();
        match message {
            Some(FromCertifier::Show(proofs)) => {
                self.certifying.proofs = proofs;
                return self.show_proofs().await;
            }
            Some(FromCertifier::Keep(account)) => return self.keep_account(&file, &account),
            Some(FromCertifier::Tell(text)) => {
                let Some(want) = self.certifying.want(&file) else { return };
                return self.errors.info(format_args!("certificate for {}: {text}", names(&want.settings)));
            }
            Some(FromCertifier::Done(Outcome::Issued { chain, key })) => self.issued(&file, &chain, &key),
            Some(FromCertifier::Done(Outcome::NotYet { renew_at, ask_after })) => {
                self.not_yet(&file, renew_at, ask_after);
            }
            Some(FromCertifier::Done(Outcome::Failed { reason, is_ours, retry_after })) => {
                self.errand_failed(&file, (reason, is_ours, retry_after));
            }
            None => self.errand_failed(&file, ("the certifier has ended without a word".to_owned(), false, None)),
        }
        self.end_errand().await;
        self.certify().await;
    }

    /// Hands the front what an authority wants to see.
    pub(super) async fn show_proofs(&self) {
        let running = self.certifying.running.as_ref().map(|running| running.errand);
        let Some(errand) = running.or(self.certifying.news.as_ref().map(|(errand, _)| *errand)) else { return };
        self.show_certificates().await;
        self.tell_front(ToFront::Challenges(errand, self.certifying.tokens())).await;
    }

    /// The front shows it.
    pub(super) async fn proofs_shown(&mut self, errand: u64) {
        if let Some((_, text)) = self.certifying.news.take_if(|(number, _)| *number == errand) {
            self.errors.info(format_args!("{text}"));
        }
        if let Some(running) = self.certifying.running.as_ref().filter(|running| running.errand == errand) {
            // One that is gone is told by the end of its channel.
            let _ = running.channel.send(&ToCertifier::Shown, &[]).await;
        }
    }

    /// Nobody is to be shown anything more. The certifier ends by itself with its channel.
    async fn end_errand(&mut self) {
        let had_proofs = !std::mem::take(&mut self.certifying.proofs).is_empty();
        if had_proofs || self.certifying.news.is_some() {
            self.show_proofs().await;
        }
        // It ends by itself where it has said all; where it was given up, now.
        let Some(running) = self.certifying.running.take() else { return };
        if self.certifying.pids.contains(&running.pid) {
            let _ = sys::signal(running.pid, rustix::process::Signal::TERM);
        }
    }

    /// It should have been over.
    pub(super) async fn errand_overdue(&mut self, errand: u64) {
        if self.certifying.running.as_ref().is_some_and(|running| running.errand == errand) {
            self.certifier_said(errand, None).await;
        }
    }

    fn keep_account(&self, file: &Path, account: &Account) {
        let kept = serde_json::to_vec(account).map_err(std::io::Error::other);
        if let Err(error) = kept.and_then(|bytes| state::keep(&account_of(file), &bytes)) {
            self.errors.error(format_args!("the account at the authority cannot be kept: {error}"));
        }
    }

    fn issued(&mut self, file: &Path, chain: &str, key: &Key) {
        let Some(want) = self.certifying.want(file) else { return };
        let settings = want.settings.clone();
        let text = format!("{chain}{}", key.0);
        let result = state::keep(file, text.as_bytes())
            .map_err(|error| format!("{}: {error}", file.display()))
            .and_then(|()| Material::read(&settings).map_err(|error| error.to_string()));
        let material = match result {
            Ok(material) => material,
            // Asked for again at the pace of what has cost the authority something.
            Err(error) => {
                return self.errand_failed(file, (format!("it was issued and cannot be used: {error}"), false, None));
            }
        };
        let _ = std::fs::remove_file(note_of(file));
        let facts = material.facts();
        if let Some(want) = self.certifying.want(file) {
            let (from, until) = facts.as_ref().map_or((0, i64::MAX), |facts| (facts.not_before, facts.not_after));
            want.order_at = schedule::after_issue(now(), from, until);
            want.due = want.order_at.min(now() + schedule::ASK_AGAIN.as_secs() as i64);
            (want.failures, want.reason) = (0, None);
        }
        let had = self.certificates.iter().any(|held| held.settings.cert == file && held.material.is_some());
        self.certificates.renew(file, &material);
        let what = if had { "was renewed" } else { "is there, https is served" };
        let (issuer, until) = facts.map_or_else(Default::default, |facts| (facts.issuer, date(facts.not_after)));
        let text = format!("the certificate for {} {what}: by {issuer}, until {until}", names(&settings));
        self.certifying.news = self.certifying.running.as_ref().map(|running| (running.errand, text));
    }

    fn not_yet(&mut self, file: &Path, renew_at: Option<i64>, ask_after: Duration) {
        if let Some(want) = self.certifying.want(file) {
            let again = now() + ask_after.as_secs() as i64;
            want.due = want.order_at.min(renew_at.unwrap_or(i64::MAX)).min(again);
        }
    }

    fn errand_failed(&mut self, file: &Path, (reason, is_ours, retry_after): (String, bool, Option<Duration>)) {
        let Some(want) = self.certifying.want(file) else { return };
        want.failures = want.failures.saturating_add(1);
        let pause = schedule::pause(want.failures, is_ours, retry_after);
        want.due = now() + pause.as_secs() as i64;
        want.reason = Some(reason.clone());
        let (due, names) = (want.due, names(&want.settings));
        if retry_after.is_some() && !is_ours {
            let note = Note { until: due, reason: reason.clone() };
            let kept = serde_json::to_vec(&note).map_err(std::io::Error::other);
            // Without it a restart asks once more.
            let _ = kept.and_then(|bytes| state::keep(&note_of(file), &bytes));
        }
        let held =
            self.certificates.iter().find(|held| held.settings.cert == file).and_then(|held| held.material.as_ref());
        let pause = pause.as_secs();
        match held.and_then(Material::facts) {
            Some(facts) => self.errors.error(format_args!(
                "the certificate for {names} was not renewed, and is valid until {}: {reason}; the next try is in {pause} s",
                date(facts.not_after)
            )),
            None => self.errors.error(format_args!("no certificate for {names}: {reason}; the next try is in {pause} s")),
        }
    }

    /// Whether this was a certifier; what it has left undone is told by the end of its channel.
    pub(super) fn certifier_ended(&mut self, ended: Ended) -> bool {
        let before = self.certifying.pids.len();
        self.certifying.pids.retain(|pid| *pid != ended.pid);
        self.certifying.pids.len() != before
    }

    /// How all certificates are.
    pub(super) fn certificates_status(&self) -> Vec<CertificateStatus> {
        let told = |held: &super::certificates::Held| {
            let facts = held.material.as_ref().and_then(Material::facts);
            let file = &held.settings.cert;
            let asking = self.certifying.running.as_ref().is_some_and(|running| &running.file == file);
            let (reason, next) = self.certifying.trouble(file);
            let source = match held.settings.source {
                Source::Files => "files",
                Source::Authority(_) => "authority",
                Source::SelfMade => "self-made",
            };
            CertificateStatus {
                hosts: held.settings.hosts.clone(),
                source: source.to_owned(),
                issuer: facts.as_ref().map(|facts| facts.issuer.clone()).unwrap_or_default(),
                until: facts.as_ref().map(|facts| facts.not_after),
                state: match (&facts, asking) {
                    (None, false) => "missing",
                    (None, true) => "asked for",
                    (Some(_), _) => "shown",
                }
                .to_owned(),
                reason,
                next_try: next,
            }
        };
        self.certificates.iter().map(told).collect()
    }
}

/// A moment as a person reads it.
fn date(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(253_402_300_799));
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + since)
}
