//! What is asked of a build, and the process that does it.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ExitCode};
use std::time::Duration;

use daemun_static::{COMPRESSED_EXTENSIONS, CacheSettings, Compression, Settings};
use serde::{Deserialize, Serialize};

use super::{Bar, CollectError, project, tell, with_levels};
use crate::app::{AppSettings, collect};
use crate::process::Account;
use crate::sys::{self, ChildSetup};

/// The role of the process that collects for another user.
pub const ROLE: &str = "--role=collect";

/// Bytes that the cache may hold, unless said otherwise: the compressed files of some hundred builds.
const CACHE: u64 = 512 * 1024 * 1024;

/// How long hashed files stay that no manifest names any more, unless said otherwise.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest order that is read.
const LONGEST: u64 = 16 * 1024 * 1024;

/// How a build is to be made.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "flags, as they are typed")]
pub struct Options {
    /// Nothing is written.
    pub dry_run: bool,
    /// What this build does not make is removed.
    pub clear: bool,
    /// A reference to a missing file is a warning.
    pub lenient: bool,
    /// One JSON object instead of a summary.
    pub json: bool,
    /// Names that are left out.
    pub ignore: Vec<String>,
    /// How long old hashed files stay; `None`: for ever.
    pub keep: Option<Duration>,
    /// The cache's folder; `None`: no cache.
    pub cache: Option<PathBuf>,
    /// Bytes that it may hold.
    pub cache_limit: u64,
    /// Levels that were asked for.
    pub levels: Levels,
}

/// Levels of compression that were asked for, beyond what a storage does.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Levels {
    /// Of gzip; 0: none.
    pub gzip: Option<u32>,
    /// Of brotli, where 0 is a level; `Some(None)`: none.
    pub brotli: Option<Option<u32>>,
    /// Of zstd; 0: none.
    pub zstd: Option<u32>,
    /// With the usual levels, whatever the storage does.
    pub usual: bool,
}

/// A build for one application.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Order {
    /// The application.
    pub settings: AppSettings,
    /// How.
    pub options: Options,
}

// === impl Levels ===

impl Levels {
    /// gzip 9, brotli 11, zstd 19: what is compressed once is fetched many times.
    pub fn standard() -> Compression {
        Compression { gzip: Some(9), brotli: Some(11), zstd: Some(19), ..Self::nothing() }
    }

    /// No encoding at all.
    pub fn nothing() -> Compression {
        let skip = COMPRESSED_EXTENSIONS.iter().map(|&extension| extension.to_owned()).collect();
        Compression { gzip: None, brotli: None, zstd: None, skip, gzip_only_with_brotli: false }
    }

    /// Whether any was asked for.
    pub fn is_any(&self) -> bool {
        self.gzip.is_some_and(|level| level > 0)
            || self.brotli.flatten().is_some()
            || self.zstd.is_some_and(|level| level > 0)
    }
}

// === impl Options ===

impl Options {
    /// The usual ones, for a project in `folder`.
    pub fn usual(folder: &std::path::Path) -> Self {
        let systems = std::env::var_os("CACHE_DIRECTORY").filter(|path| !path.is_empty());
        let cache = systems.map_or_else(|| folder.join(".daemun").join("cache"), PathBuf::from);
        Self {
            dry_run: false,
            clear: false,
            lenient: false,
            json: false,
            ignore: Vec::new(),
            keep: Some(KEEP),
            cache: Some(cache),
            cache_limit: CACHE,
            levels: Levels::default(),
        }
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            keep: self.keep,
            cache: self.cache.clone().map(|folder| CacheSettings { folder, limit: self.cache_limit }),
            dry_run: self.dry_run,
            clear: self.clear,
            lenient: self.lenient,
            ..Settings::default()
        }
    }

    pub(super) fn compression(&self, own: Option<Compression>) -> Option<Compression> {
        let own = if self.levels.usual { Some(own.unwrap_or_else(Levels::standard)) } else { own };
        with_levels(own, &self.levels)
    }
}

/// Starts the process that carries an order out, as the application's user. It ends when `lifeline`'s other end does,
/// and what it says goes to standard error, but for JSON.
pub fn start(
    order: &Order,
    account: Option<&Account>,
    lifeline: OwnedFd,
    own_group: bool,
) -> Result<Child, CollectError> {
    let (reader, mut writer) = std::io::pipe().map_err(CollectError::Start)?;
    let setup = ChildSetup { own_group, ..ChildSetup::default() };
    let descriptors = vec![OwnedFd::from(reader), lifeline];
    let child = collect::start_role(&order.settings, ROLE, account, descriptors, setup).map_err(CollectError::Start)?;
    let text = serde_json::to_vec(order).map_err(|error| CollectError::Start(error.into()))?;
    writer.write_all(&text).map_err(CollectError::Start)?;
    Ok(child)
}

/// Carries an order out as the application's user and waits for it.
pub fn start_and_wait(order: &Order, account: &Account) -> Result<ExitCode, CollectError> {
    let (lifeline, kept) = std::io::pipe().map_err(CollectError::Start)?;
    let mut child = start(order, Some(account), lifeline.into(), false)?;
    let status = child.wait().map_err(CollectError::Start)?;
    drop(kept);
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The process in [`ROLE`]: its order stands in descriptor 3, its lifeline is descriptor 4.
pub fn execute() -> ExitCode {
    let order = (|| {
        let orders = std::fs::File::from(sys::inherited(3)?);
        let mut lifeline = std::fs::File::from(sys::inherited(4)?);
        std::thread::spawn(move || {
            let _ = lifeline.read(&mut [0]);
            std::process::exit(1);
        });
        let mut text = Vec::new();
        orders.take(LONGEST).read_to_end(&mut text)?;
        Ok::<Order, std::io::Error>(serde_json::from_slice(&text)?)
    })();
    match order {
        Ok(order) => carry_out(&order),
        Err(error) => {
            eprintln!("daemun: collect: no order: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does it and tells.
pub fn carry_out(order: &Order) -> ExitCode {
    // An encoder takes megabytes for each file.
    sys::keep_freed_memory();
    let bar = Bar::new();
    let outcome = project(&order.settings, &order.options, &bar);
    bar.clear();
    match outcome {
        Ok(outcome) => {
            tell(&outcome, &order.options);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("daemun: collect: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether somebody looks at standard error.
pub(super) fn is_watched() -> bool {
    rustix::termios::isatty(std::io::stderr().as_fd())
}
