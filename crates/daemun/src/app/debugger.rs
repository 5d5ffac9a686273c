//! What an editor attaches to while somebody develops: a process with a debugger in the application's environment.
//!
//! It outlives the workers: an editor attaches once, and each worker, those after a change too, joins its session.

use std::os::unix::net::UnixStream as StdStream;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;

use super::collect;
use super::settings::AppSettings;
use crate::process::Account;

/// What it runs.
const PROGRAM: &str = include_str!("debugger.py");

/// The longest line that it may say.
const MAX_LINE: u64 = 64 * 1024;

/// One that has been started. It ends with this value.
pub struct Debugger {
    /// Its process id.
    pub pid: i32,
    channel: BufReader<UnixStream>,
}

/// Where it listens.
#[derive(Deserialize)]
pub struct Attachable {
    /// The port on 127.0.0.1 that an editor attaches to.
    pub port: u16,
    /// How workers join, in words of their own.
    pub wish: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Listens(Attachable),
    Fails { error: String },
}

impl Debugger {
    /// Starts it in the application's environment.
    pub fn start(settings: &AppSettings, account: Option<&Account>, port: u16) -> std::io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let channel = BufReader::new(UnixStream::from_std(ours)?);
        let child = collect::run_as(settings, account, PROGRAM, &[&port.to_string()], vec![theirs.into()])?;
        Ok(Self { pid: child.id() as i32, channel })
    }

    /// Waits until it listens; else why it does not.
    pub async fn listens(&mut self) -> Result<Attachable, String> {
        let mut line = Vec::new();
        let read = (&mut self.channel).take(MAX_LINE).read_until(b'\n', &mut line).await;
        match serde_json::from_slice(&line) {
            Ok(Said::Listens(attachable)) => Ok(attachable),
            Ok(Said::Fails { error }) => Err(error),
            Err(_) => Err(match read {
                Err(error) => format!("the debugger's process does not answer: {error}"),
                Ok(_) => String::from("the debugger's process has ended; what it said stands above"),
            }),
        }
    }

    /// Waits for its end.
    pub async fn ended(mut self) {
        // It says nothing more: whatever comes is the end.
        let _ = self.channel.read_u8().await;
    }
}
