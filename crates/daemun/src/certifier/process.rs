//! The certifier's process: one errand, then the end.

use std::io;
use std::process::ExitCode;

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::exchange::Authority;
use super::reach::{Sign, Verdict, reach};
use super::schedule::ASK_AGAIN;
use super::{ERRAND_DEADLINE, Errand, FromCertifier, Outcome, Proof, ToCertifier, order};
use crate::process::{self, Channel};
use crate::sys;
use crate::tls::{self, ChallengeWay, Material};

/// Runs the certifier on the channel that was inherited as `descriptor`.
pub fn run(descriptor: i32) -> ExitCode {
    let result = start(descriptor);
    if let Err(error) = &result {
        process::say(format_args!("certifier: {error}"));
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(descriptor: i32) -> io::Result<()> {
    // Before anything else: no process of the same user may look into this one.
    sys::forbid_inspection()?;
    sys::default_signals();
    // For `ps` and `top`: it was started through a link of the kernel's.
    let _ = rustix::thread::set_name(c"daemun-acme");
    let channel = sys::inherited(descriptor)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut channel: Channel<FromCertifier, ToCertifier> = Channel::from_descriptor(channel)?;
        let Ok(Some((ToCertifier::Errand(errand), _))) = channel.receive().await else { return Ok(()) };
        let (shown, talk_shown) = mpsc::unbounded_channel();
        let mut talk = Talk { channel: channel.sender(), shown: talk_shown };
        // The end of the channel is the end of the supervisor, and of us.
        let listening = async move {
            while let Ok(Some((message, _))) = channel.receive().await {
                if matches!(message, ToCertifier::Shown) {
                    // Nobody waits where the errand is over.
                    let _ = shown.send(());
                }
            }
        };
        tokio::select! {
            () = listening => {}
            outcome = timeout(ERRAND_DEADLINE, carry_out(&errand, &mut talk)) => {
                let outcome = outcome.unwrap_or_else(|_| failed("it took too long", false));
                talk.say(FromCertifier::Done(outcome)).await;
            }
        }
        Ok(())
    });
    // A name that is still being resolved is not waited for.
    runtime.shutdown_background();
    result
}

/// The supervisor's ear.
pub(super) struct Talk {
    channel: Channel<FromCertifier, ToCertifier>,
    shown: mpsc::UnboundedReceiver<()>,
}

impl Talk {
    /// Says something; a supervisor that is gone hears nothing.
    pub(super) async fn say(&self, word: FromCertifier) {
        let _ = self.channel.send(&word, &[]).await;
    }

    /// Has these shown in place of those before, and waits until they are.
    pub(super) async fn show(&mut self, proofs: Vec<Proof>) {
        self.say(FromCertifier::Show(proofs)).await;
        // Without a supervisor the errand is over.
        let _ = self.shown.recv().await;
    }
}

fn failed(reason: impl Into<String>, is_ours: bool) -> Outcome {
    Outcome::Failed { reason: reason.into(), is_ours, retry_after: None }
}

async fn carry_out(errand: &Errand, talk: &mut Talk) -> Outcome {
    let authority = match Authority::new(errand.authorities.as_deref()) {
        Ok(authority) => authority,
        Err(reason) => return failed(reason, true),
    };
    let refused = |reason: String| {
        let (is_ours, retry_after) = (!authority.has_answered(), authority.retry_after());
        let reason = if is_ours { format!("the authority cannot be reached: {reason}") } else { reason };
        Outcome::Failed { reason, is_ours, retry_after }
    };
    let mut client = None;
    if let (false, Some(current)) = (errand.is_due, &errand.current) {
        let Ok(account) = order::account(errand, &authority, talk).await else {
            // It was only a question: nothing is late.
            return Outcome::NotYet { renew_at: None, ask_after: ASK_AGAIN };
        };
        match order::renewal(&account, current).await {
            Some(Outcome::NotYet { renew_at: Some(at), ask_after }) if at > order::now() => {
                return Outcome::NotYet { renew_at: Some(at), ask_after };
            }
            None => return Outcome::NotYet { renew_at: None, ask_after: ASK_AGAIN },
            Some(_) => talk.say(FromCertifier::Tell("the authority wants it renewed now".to_owned())).await,
        }
        client = Some(account);
    }
    let way = match choose_way(errand, talk).await {
        Ok(way) => way,
        Err(reason) => return failed(reason, true),
    };
    let client = match client {
        Some(client) => client,
        None => match order::account(errand, &authority, talk).await {
            Ok(client) => client,
            Err(error) => return refused(order::told(&error)),
        },
    };
    let issued = order::issue(errand, (client, &authority), way, talk).await;
    issued.unwrap_or_else(refused)
}

/// The first way by which every name is seen to lead here. Where none is, the first that cannot be judged from here.
async fn choose_way(errand: &Errand, talk: &mut Talk) -> Result<ChallengeWay, String> {
    let (mut unsure, mut reasons) = (None, Vec::new());
    for &(way, port) in &errand.ways {
        match try_way(errand, way, port, talk).await? {
            (false, doubts) if doubts.is_empty() => return Ok(way),
            (false, doubts) => unsure = unsure.or(Some((way, doubts))),
            // What does not resolve does not by any way.
            (true, faults) => {
                let new: Vec<String> = faults.into_iter().filter(|fault| !reasons.contains(fault)).collect();
                reasons.extend(new);
            }
        }
    }
    let Some((way, doubts)) = unsure else {
        return Err(if reasons.is_empty() {
            "there is no listener that an authority could ask".into()
        } else {
            reasons.join("; ")
        });
    };
    let text = format!("{}: the authority is asked all the same ({})", doubts.join("; "), way.name());
    talk.say(FromCertifier::Tell(text)).await;
    Ok(way)
}

/// Whether any name leads elsewhere, and the reasons; or the doubts.
async fn try_way(
    errand: &Errand,
    way: ChallengeWay,
    port: u16,
    talk: &mut Talk,
) -> Result<(bool, Vec<String>), String> {
    let (token, text) = (random()?, random()?);
    let mut made: Vec<Material> = Vec::new();
    match way {
        ChallengeWay::Http => {
            let proof = Proof::Http { token: token.clone(), text: text.clone() };
            talk.show(vec![proof]).await;
        }
        ChallengeWay::TlsAlpn => {
            for name in &errand.names {
                // 32 bytes, as a digest has.
                made.push(tls::proof(name, text.as_bytes()).map_err(|error| error.to_string())?);
            }
            talk.show(made.iter().cloned().map(Box::new).map(Proof::Tls).collect()).await;
        }
    }
    let path = format!("/.well-known/acme-challenge/{token}");
    let (mut faults, mut doubts) = (Vec::new(), Vec::new());
    for (at, name) in errand.names.iter().enumerate() {
        let sign = match made.get(at) {
            Some(material) => Sign::Tls(material),
            None => Sign::Http { path: &path, text: &text },
        };
        match reach(name, port, sign).await {
            Verdict::Here => {}
            Verdict::Unsure(why) => doubts.push(why),
            Verdict::Elsewhere(why) => faults.push(why),
        }
    }
    talk.show(Vec::new()).await;
    Ok(if faults.is_empty() { (false, doubts) } else { (true, faults) })
}

/// 32 hexadecimal digits that nobody can guess.
fn random() -> Result<String, String> {
    let mut bytes = [0_u8; 16];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(16) => Ok(format!("{:032x}", u128::from_be_bytes(bytes))),
        _ => Err("the system has no randomness".to_owned()),
    }
}
