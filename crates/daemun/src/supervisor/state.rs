//! The folder for what must be found again after a restart: accounts at authorities, certificates, their keys.
//!
//! Nobody but its owner may enter it or read what is in it. A file is replaced in one step, so that whoever reads it finds
//! the old or the new.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Kinds of file systems that a restart of the machine or of a container empties, by the numbers that `statfs(2)` gives.
const FLEETING: &[(u64, &str)] = &[
    (0x0102_1994, "memory (tmpfs)"),
    (0x8584_58f6, "memory (ramfs)"),
    (0x794c_7630, "the own layer of a container (overlayfs)"),
];

/// Bytes of a file that is read back: an account, or a note.
const MOST: u64 = 64 << 10;

/// Makes a folder, with those above it that are missing; what is made is its owner's alone, and so is the last of them.
pub fn prepare(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if fs::metadata(folder)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Puts a file there, or another in its place: whole, on the disk, and its owner's alone.
pub fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    prepare(folder)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = folder.join(name);
    // One that a crash has left behind may have another mode.
    let _ = fs::remove_file(&fresh);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    });
    if let Err(error) = written {
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// What is in a file; `None` where there is none that can be read.
pub fn recall(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    File::open(path).ok()?.take(MOST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// What the folder lies on, where a restart empties that.
pub fn fleeting(folder: &Path) -> Option<&'static str> {
    let found = rustix::fs::statfs(folder).ok()?;
    // Some architectures have it signed, and 32 bits wide.
    let number = u64::from(found.f_type as u32);
    FLEETING.iter().find(|(kind, _)| *kind == number).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_kept_is_its_owners_alone_and_replaced_in_one_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/acme/x/a.example.pem");
        keep(&path, b"one").unwrap();
        assert_eq!(
            (mode(&path), mode(path.parent().unwrap()), mode(&folder.path().join("state"))),
            (0o600, 0o700, 0o700)
        );
        keep(&path, b"two").unwrap();
        assert_eq!(recall(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_others_could_enter_is_shut() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        prepare(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), 0o700);
    }

    #[test]
    fn memory_is_told_from_a_disk() {
        assert_eq!(fleeting(Path::new("/proc")), None);
        assert_eq!(fleeting(Path::new("/dev/shm")).is_some(), Path::new("/dev/shm").is_dir());
    }
}
