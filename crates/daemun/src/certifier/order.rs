//! Asking an authority for a certificate (RFC 8555, section 7), and when it wants one renewed (RFC 9773).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instant_acme::{
    Account as Client, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, Der};

use super::exchange::Authority;
use super::process::Talk;
use super::schedule::ASK_AGAIN;
use super::{Account, Errand, FromCertifier, Outcome, Proof};
use crate::tls::{self, ChallengeWay, RenewalId};

/// How long an authority may take to look at the names, and again to sign.
const POLLING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.6).timeout(Duration::from_secs(180));

/// The account at the authority: the one that was kept, or a new one, which is kept.
pub(super) async fn account(errand: &Errand, authority: &Authority, talk: &Talk) -> Result<Client, Error> {
    let builder = || Client::builder_with_http(Box::new(authority.shared()));
    let email = errand.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = email.as_deref().into_iter().collect();
    if let Some(kept) = &errand.account
        && let Ok(credentials) = serde_json::from_value(kept.credentials.clone())
    {
        let client = builder().from_credentials(credentials).await?;
        if kept.email == errand.email {
            return Ok(client);
        }
        match client.update_contacts(&contact).await {
            Ok(()) => {
                let kept = Account { email: errand.email.clone(), ..kept.clone() };
                talk.say(FromCertifier::Keep(kept)).await;
                return Ok(client);
            }
            Err(error) if is_unknown(&error) => {}
            Err(error) => return Err(error),
        }
    }
    new_account(errand, authority, talk).await
}

/// A new account, whatever was kept.
async fn new_account(errand: &Errand, authority: &Authority, talk: &Talk) -> Result<Client, Error> {
    let email = errand.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = email.as_deref().into_iter().collect();
    let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let builder = Client::builder_with_http(Box::new(authority.shared()));
    let (client, credentials) = builder.create(&wanted, errand.directory.clone(), None).await?;
    let kept = Account { credentials: serde_json::to_value(&credentials)?, email: errand.email.clone() };
    talk.say(FromCertifier::Keep(kept)).await;
    Ok(client)
}

/// Whether an authority has forgotten the account.
fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist"))
}

/// When the authority wants the certificate renewed; `None` where it does not say.
pub(super) async fn renewal(client: &Client, current: &str) -> Option<Outcome> {
    let (info, ask_after) = client.renewal_info(&identifier(current)?).await.ok()?;
    let (start, end) = (info.suggested_window.start.unix_timestamp(), info.suggested_window.end.unix_timestamp());
    // Some moment of it, as section 4.2 asks for, so that not all ask at once; the same one each time we look.
    let part = current.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))) % 1000;
    let renew_at = start + (end - start).max(0) / 1000 * part as i64;
    let ask_after = ask_after.clamp(Duration::from_secs(60), ASK_AGAIN * 4);
    Some(Outcome::NotYet { renew_at: Some(renew_at), ask_after })
}

fn identifier(chain: &str) -> Option<CertificateIdentifier<'static>> {
    let certificate = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
    let id = RenewalId::read(&certificate)?;
    Some(CertificateIdentifier::new(Der::from_slice(&id.authority_key), Der::from_slice(&id.serial)).into_owned())
}

/// Now, in seconds since 1970.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Asks for a certificate and shows by `way` that the names lead here.
pub(super) async fn issue(
    errand: &Errand,
    (client, authority): (Client, &Authority),
    way: ChallengeWay,
    talk: &mut Talk,
) -> Result<Outcome, String> {
    let mut order = match begin(errand, &client).await {
        Err(error) if is_unknown(&error) => {
            let client = new_account(errand, authority, talk).await.map_err(|error| told(&error))?;
            begin(errand, &client).await.map_err(|error| told(&error))?
        }
        begun => begun.map_err(|error| told(&error))?,
    };
    let proofs = proofs(&mut order, way).await?;
    if !proofs.is_empty() {
        talk.show(proofs).await;
        set_ready(&mut order, way).await?;
    }
    let polled = order.poll_ready(&POLLING).await;
    talk.show(Vec::new()).await;
    match polled {
        Ok(OrderStatus::Ready | OrderStatus::Valid) => {}
        Ok(_) => return Err(refusal(&mut order).await),
        Err(error) => return Err(told(&error)),
    }
    let request = tls::request(&errand.names).map_err(|error| error.to_string())?;
    order.finalize_csr(&request.der).await.map_err(|error| told(&error))?;
    let chain = order.poll_certificate(&POLLING).await.map_err(|error| told(&error))?;
    Ok(Outcome::Issued { chain, key: request.key })
}

async fn begin(errand: &Errand, client: &Client) -> Result<Order, Error> {
    let names: Vec<Identifier> = errand.names.iter().cloned().map(Identifier::Dns).collect();
    if let Some(replaced) = errand.current.as_deref().and_then(identifier) {
        match client.new_order(&NewOrder::new(&names).replaces(replaced)).await {
            Ok(order) => return Ok(order),
            Err(error) if is_unknown(&error) => return Err(error),
            // It does not know the extension, or not the certificate: then it is an order like the first.
            Err(Error::Api(problem)) if problem.status == Some(429) => return Err(Error::Api(problem)),
            Err(_) => {}
        }
    }
    client.new_order(&NewOrder::new(&names)).await
}

fn kind(way: ChallengeWay) -> ChallengeType {
    match way {
        ChallengeWay::Http => ChallengeType::Http01,
        ChallengeWay::TlsAlpn => ChallengeType::TlsAlpn01,
    }
}

/// What is to be shown for each name that the authority has not seen lately.
async fn proofs(order: &mut Order, way: ChallengeWay) -> Result<Vec<Proof>, String> {
    let mut proofs = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| told(&error))?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let challenge = authorization
            .challenge(kind(way))
            .ok_or_else(|| format!("the authority does not offer {} for {name}", way.name()))?;
        let seen = challenge.key_authorization();
        proofs.push(match way {
            ChallengeWay::Http => Proof::Http { token: challenge.token.clone(), text: seen.as_str().to_owned() },
            ChallengeWay::TlsAlpn => {
                let proof = tls::proof(&name, seen.digest().as_ref()).map_err(|error| error.to_string())?;
                Proof::Tls(Box::new(proof))
            }
        });
    }
    Ok(proofs)
}

async fn set_ready(order: &mut Order, way: ChallengeWay) -> Result<(), String> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| told(&error))?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        if let Some(mut challenge) = authorization.challenge(kind(way)) {
            challenge.set_ready().await.map_err(|error| told(&error))?;
        }
    }
    Ok(())
}

/// Why an order has become invalid: what the authority says of the names.
async fn refusal(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        // What cannot be read now is not worth another failure.
        let Ok(state) = authorization.refresh().await else { continue };
        for problem in state.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
            reasons.push(format!("the authority could not see that {name} leads here: {}", words(problem)));
        }
    }
    if reasons.is_empty() {
        "the authority has refused the order and does not say why".to_owned()
    } else {
        reasons.join("; ")
    }
}

/// An error in the words of whoever made it.
pub(super) fn told(error: &Error) -> String {
    match error {
        Error::Api(problem) if is(problem, "rateLimited") => format!("a limit of the authority: {}", words(problem)),
        Error::Api(problem) if is(problem, "externalAccountRequired") => {
            "the authority wants an account that was made elsewhere (external account binding), which is not supported"
                .to_owned()
        }
        Error::Api(problem) => format!("the authority refuses: {}", words(problem)),
        Error::Timeout(_) => "the authority has not come to an end in time".to_owned(),
        Error::Other(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn is(problem: &Problem, kind: &str) -> bool {
    problem.r#type.as_deref().and_then(|told| told.rsplit(':').next()) == Some(kind)
}

/// The authority's words, with those about single names.
fn words(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().and_then(|told| told.rsplit(':').next()).unwrap_or("unknown");
    let mut text = format!("{} ({kind})", problem.detail.as_deref().unwrap_or("no detail"));
    for part in &problem.subproblems {
        text.extend(["; ", &part.to_string()]);
    }
    text
}
