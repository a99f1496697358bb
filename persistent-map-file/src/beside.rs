//! Files that a store makes and reads: never through a link, and with no more rights than they need.
//!
//! In a directory that others may write to, somebody may give the name that a file is about to get to a symbolic link. So a
//! file is made only where there is none, and opened only if it is what has the name.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::path::{identity, regular};

/// How often to look again at a name that changes while it is looked at.
const TRIES: usize = 10;

/// Opens the file that has this very name for reading and writing; `None` if there is none.
///
/// # Errors
/// It is a symbolic link or no regular file, or the system refuses.
///
/// ```
/// use persistent_map_file::open_itself;
///
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// assert!(open_itself(&dir.join("app.journal"))?.is_none());
/// # #[cfg(unix)] {
/// std::os::unix::fs::symlink("/etc/passwd", dir.join("app.journal"))?;
/// let error = open_itself(&dir.join("app.journal")).unwrap_err().to_string();
/// assert!(error.contains("symbolic link"));
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn open_itself(path: &Path) -> io::Result<Option<File>> {
    for _ in 0..TRIES {
        let Some(named) = metadata_of(path)? else {
            return Ok(None);
        };
        if named.file_type().is_symlink() {
            return Err(io::Error::other("it is a symbolic link"));
        }
        if !named.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => regular(opened?)?,
        };
        // Between the two looks the name may have gone to another file, or to a link.
        if identity(&file.metadata()?) == identity(&named) {
            return Ok(Some(file));
        }
    }
    Err(io::Error::other("others replace it again and again"))
}

/// Makes a new, empty file in place of whatever had this name, with the owner and the mode of the file `like` if there is
/// one. Without it nobody else may write to the new file but the group, as the umask says.
///
/// # Errors
/// What has the name cannot be removed (a directory, say), somebody else has taken the name in this moment, or the system
/// refuses.
///
/// ```
/// use std::fs;
///
/// use persistent_map_file::create_anew;
///
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let (table, draft) = (dir.join("app.txt"), dir.join("app.txt.new"));
/// fs::write(&table, "contents")?;
/// # #[cfg(unix)]
/// std::os::unix::fs::symlink(&table, &draft)?; // planted by somebody else
/// let file = create_anew(&draft, &table)?;
/// file.set_len(0)?;
/// assert_eq!(fs::read_to_string(&table)?, "contents");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn create_anew(path: &Path, like: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match metadata_of(like)? {
        Some(like) => {
            // Until it has the rights of the other one, nobody else may open it.
            let file = new_file(path, 0o600)?;
            copy_rights(&file, &like)?;
            Ok(file)
        }
        None => new_file(path, 0o664),
    }
}

/// Makes the lock file of `target`, for those who may write to `target`: whoever can open it can lock it, and reads who
/// has.
pub(crate) fn create_lock(path: &Path, target: &Path) -> io::Result<File> {
    let like = metadata_of(target)?;
    let file = new_file(path, if like.is_some() { 0o600 } else { 0o660 })?;
    for_writers(&file, like.as_ref())?;
    Ok(file)
}

/// Whether this name is the file's.
pub(crate) fn has_name(file: &File, path: &Path) -> io::Result<bool> {
    let named = metadata_of(path)?;
    Ok(named.is_some_and(|named| match file.metadata() {
        Ok(own) => identity(&own) == identity(&named),
        Err(_) => false,
    }))
}

fn metadata_of(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn new_file(path: &Path, mode: u32) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(mode);
    options.open(path)
}

/// On other systems a new file inherits its rights from the directory.
#[cfg(not(unix))]
fn new_file(path: &Path, _: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    options.open(path)
}

#[cfg(unix)]
fn copy_rights(file: &File, like: &Metadata) -> io::Result<()> {
    give_to_owner_of(like, file)?;
    file.set_permissions(like.permissions())
}

#[cfg(not(unix))]
fn copy_rights(_: &File, _: &Metadata) -> io::Result<()> {
    Ok(())
}

/// Reading and writing for each who may write to the other file, and nothing for those who may only read it.
#[cfg(unix)]
fn for_writers(file: &File, like: Option<&Metadata>) -> io::Result<()> {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    let mode = match like {
        Some(like) => {
            give_to_owner_of(like, file)?;
            like.mode()
        }
        None => file.metadata()?.mode(),
    };
    let writers = mode & 0o222 | 0o200;
    file.set_permissions(Permissions::from_mode(writers | writers << 1))
}

#[cfg(not(unix))]
fn for_writers(_: &File, _: Option<&Metadata>) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn give_to_owner_of(like: &Metadata, file: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};

    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        // Only the administrator may give files away; everybody else keeps what they write.
        let _ = fchown(file, Some(like.uid()), Some(like.gid()));
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn target(dir: &Path, mode: u32) -> PathBuf {
        let path = dir.join("app.csv");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_lock_file_is_for_those_who_may_write_the_file() {
        for (file, lock) in [
            (0o644, 0o600),
            (0o600, 0o600),
            (0o664, 0o660),
            (0o666, 0o666),
            (0o444, 0o600),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("app.csv.lock");
            create_lock(&path, &target(dir.path(), file)).unwrap();
            assert_eq!(mode(&path), lock, "{file:o}");
        }
    }

    #[test]
    fn a_new_file_is_never_for_everybody_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let (missing, new) = (dir.path().join("missing"), dir.path().join("new"));
        create_anew(&new, &missing).unwrap();
        assert_eq!(mode(&new) & 0o002, 0);
        let lock = dir.path().join("missing.lock");
        create_lock(&lock, &missing).unwrap();
        assert_eq!(mode(&lock) & 0o007, 0);
    }

    #[test]
    fn a_link_that_somebody_has_planted_is_neither_opened_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let victim = target(dir.path(), 0o644);
        fs::write(&victim, "of somebody else").unwrap();
        let nowhere = dir.path().join("nowhere");
        for to in [&victim, &nowhere] {
            let planted = dir.path().join("planted");
            symlink(to, &planted).unwrap();
            assert!(open_itself(&planted).is_err());
            assert_eq!(
                create_lock(&planted, &nowhere).unwrap_err().kind(),
                ErrorKind::AlreadyExists
            );
            create_anew(&planted, &nowhere).unwrap();
            assert!(fs::symlink_metadata(&planted).unwrap().is_file());
            fs::remove_file(&planted).unwrap();
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "of somebody else");
        assert!(!nowhere.exists());
    }
}
