//! The server's end of the socket.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::message::{Answer, Command, MAX_COMMAND};
use crate::sys;

/// How long a command may take to be sent: one line, from this machine.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);

/// How long an answer may take to be read.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Conversations at a time: operators, a monitoring agent, a few `status --watch`.
const MAX_CONVERSATIONS: usize = 32;

/// A command and the way to answer it.
#[derive(Debug)]
pub struct Asked {
    /// What is wanted.
    pub command: Command,
    /// Who is to be told.
    pub reply: Reply,
}

/// Tells whoever asked. Without an answer the conversation ends with the server.
#[derive(Clone, Debug)]
pub struct Reply(mpsc::UnboundedSender<Answer>);

impl Reply {
    /// A line meanwhile.
    pub fn say(&self, text: impl Into<String>) {
        self.send(Answer::Say { text: text.into() });
    }

    /// It is done.
    pub fn done(&self, text: impl Into<String>) {
        self.send(Answer::Done { text: text.into() });
    }

    /// It is not.
    pub fn refuse(&self, reason: impl Into<String>) {
        self.send(Answer::Refused { reason: reason.into() });
    }

    /// Any answer. Whoever asked may be gone.
    pub fn send(&self, answer: Answer) {
        let _ = self.0.send(answer);
    }
}

/// A control socket that is being listened on. Its file goes with the value.
#[derive(Debug)]
pub struct Listening {
    path: PathBuf,
    accepting: tokio::task::JoinHandle<()>,
}

impl Listening {
    /// Listens at `path`; `asked` is told of each command. A file that nobody listens on any more is replaced.
    pub fn start(path: &Path, asked: impl Fn(Asked) + Clone + Send + 'static) -> io::Result<Self> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server answers there"));
        }
        // Bound beside its place and moved: nobody can connect before the access bits are right, and nobody finds none.
        let beside = path.with_extension(format!("{}", std::process::id()));
        let _ = std::fs::remove_file(&beside);
        let listener = UnixListener::bind(&beside)?;
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&beside, path)?;
        let accepting = tokio::spawn(accept(listener, asked));
        Ok(Self { path: path.to_path_buf(), accepting })
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops listening but leaves the file: a program that takes over replaces it.
    pub fn leave(mut self) {
        self.accepting.abort();
        self.path = PathBuf::new();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
        if !self.path.as_os_str().is_empty() {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn accept(listener: UnixListener, asked: impl Fn(Asked) + Clone + Send + 'static) {
    let permits = Arc::new(Semaphore::new(MAX_CONVERSATIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let asked = asked.clone();
                tokio::spawn(async move {
                    converse(stream, asked).await;
                    drop(permit);
                });
            }
            // Out of descriptors: whoever asks waits a moment.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// One command and its answers.
async fn converse(mut stream: UnixStream, asked: impl Fn(Asked)) {
    let (sender, mut answers) = mpsc::unbounded_channel();
    // Whoever holds the sender holds the conversation open: this function does not.
    let reply = Reply(sender);
    match hear(&stream).await {
        Ok(command) => asked(Asked { command, reply }),
        Err(reason) => {
            reply.refuse(reason);
            drop(reply);
        }
    }
    while let Some(answer) = answers.recv().await {
        let Ok(mut line) = serde_json::to_vec(&answer) else { return };
        line.push(b'\n');
        if !matches!(timeout(ANSWER_DEADLINE, stream.write_all(&line)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// The command, or why there is none.
async fn hear(stream: &UnixStream) -> Result<Command, String> {
    // Read first: who is refused while writing would not hear why.
    let line = timeout(COMMAND_DEADLINE, read_line(stream)).await;
    may_ask(stream)?;
    let line = line.map_err(|_| "the command did not come".to_owned())??;
    serde_json::from_slice(&line).map_err(|error| format!("this version does not understand the command: {error}"))
}

/// The same user, or root: by the kernel's word, for the file's access bits alone do not hold on every system.
fn may_ask(stream: &UnixStream) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    let peer = stream.peer_cred().map_err(|error| format!("the kernel does not say who asks: {error}"))?;
    match peer.uid() {
        0 => Ok(()),
        user if user == own => Ok(()),
        user => Err(format!("user {user} may not command a server of user {own}")),
    }
}

async fn read_line(stream: &UnixStream) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    loop {
        if sys::read_more(stream, &mut line).await.map_err(|error| error.to_string())? == 0 {
            return Err("the command ended before its line did".to_owned());
        }
        if let Some(end) = memchr::memchr(b'\n', &line) {
            line.truncate(end);
            return Ok(line);
        }
        if line.len() > MAX_COMMAND {
            return Err(format!("the command is longer than {MAX_COMMAND} bytes"));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::control::client::Conversation;

    async fn say(path: &Path, bytes: Vec<u8>) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_command_is_answered_and_nonsense_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listening = Listening::start(&path, |asked| match asked.command {
            Command::Stop => {
                asked.reply.say("a");
                asked.reply.done("b");
            }
            other => asked.reply.refuse(format!("{other:?}")),
        })
        .unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = say(&path, b"{\"command\":\"stop\"}\n".to_vec()).await;
        assert_eq!(text, "{\"answer\":\"say\",\"text\":\"a\"}\n{\"answer\":\"done\",\"text\":\"b\"}\n");
        assert!(say(&path, b"GET / HTTP/1.1\r\n".to_vec()).await.contains("does not understand"));
        assert!(say(&path, vec![b'x'; MAX_COMMAND + 9]).await.contains("longer than"));
        assert!(Listening::start(&path, |_| ()).is_err(), "a living one is not replaced");
        drop(listening);
        assert!(!path.exists());
        let error = Conversation::open(std::slice::from_ref(&path)).unwrap_err().to_string();
        assert_eq!(error, format!("no server is running here; looked at {}", path.display()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_does_not_come_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let _listening = Listening::start(&path, |_| ()).unwrap();
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("did not come"), "{text}");
    }
}
