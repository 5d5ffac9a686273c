//! From a program's output to the head of its answer ([`Head`]).

use daemun_protocol::cgi::{HeadError, parse_head};

use super::process::{Output, Process, Silence};
use crate::gateway::{Head, fields};
use crate::http::{Interim, Status};
use crate::launcher::{Ending, LaunchError};

/// Bytes of output that the log quotes.
const QUOTED: usize = 200;

/// Why there is no head.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoHead {
    /// The output is something else.
    #[error("{error}; its output begins with \"{quoted}\"")]
    Invalid {
        /// Why.
        error: HeadError,
        /// What stood there.
        quoted: String,
    },
    /// The output ended before the head did.
    #[error("{}", self.ended())]
    Ended {
        /// How the program ended.
        ending: Option<Ending>,
        /// What there was.
        quoted: String,
    },
    /// It never ran.
    #[error("{0}")]
    Failed(LaunchError),
    /// It said nothing for too long.
    #[error("no header within the route's `timeout`")]
    Late,
}

impl NoHead {
    fn ended(&self) -> String {
        let Self::Ended { ending, quoted } = self else { return String::new() };
        let how = match ending {
            Some(Ending { signal: Some(signal), .. }) => {
                format!("it was killed by signal {signal} before it ended its")
            }
            Some(Ending { code: Some(code), .. }) => format!("it exited with code {code} before it ended its"),
            Some(_) => "the launcher ended, and with it the program, before its".to_owned(),
            None => "its output ended before its".to_owned(),
        };
        if quoted.is_empty() {
            return format!("{how} headers: there is no output at all");
        }
        format!("{how} headers with an empty line; its output is \"{quoted}\"")
    }
}

/// Reads the head, and passes interim responses before it on.
pub(super) async fn read_head(process: &mut Process, is_nph: bool, interim: &Interim) -> Result<Head, NoHead> {
    loop {
        match parse_head(&process.buffer) {
            Ok(Some(head)) => {
                let bytes = process.buffer.split_to(head.length).freeze();
                let status = head.status.as_ref().and_then(|&(code, _)| Status::from_code(code));
                match status.filter(|status| status.is_informational()) {
                    Some(status) => interim.send(status, fields(&bytes, &head)),
                    None => return Ok(Head::of(&bytes, &head, is_nph)),
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => return Err(NoHead::Invalid { error, quoted: quoted(process) }),
        }
        match process.read().await {
            Output::More => {}
            Output::End(ending) => return Err(NoHead::Ended { ending, quoted: quoted(process) }),
            Output::Failed(error) => return Err(NoHead::Failed(error)),
            Output::Late(Silence::Idle | Silence::Total) => return Err(NoHead::Late),
        }
    }
}

fn quoted(process: &Process) -> String {
    let bytes = &process.buffer[..process.buffer.len().min(QUOTED)];
    bytes.escape_ascii().to_string()
}
