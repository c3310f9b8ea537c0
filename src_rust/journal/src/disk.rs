//! What the journal asks of a disk, and the real one.
//!
//! One flat folder. Names are durable after [`Disk::sync_dir`], bytes and lengths after
//! [`DiskFile::sync`]; nothing else is assumed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{flock, statvfs, FlockOperation};

use crate::error::{is_read_only, OpenError};

/// The name of the lock file.
const LOCK: &str = "lock";

/// Bytes of zeros written and flushed at a time when preparing a file, so that a batch which is
/// flushed meanwhile waits for no more than that.
const ZEROS: usize = 1 << 20;

/// A folder of files.
pub trait Disk: Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// Held for as long as the state is.
    type Lock: Send + 'static;

    /// Takes the folder for this process alone.
    ///
    /// # Errors
    /// [`OpenError::Locked`] with the holder's process id, or why the lock cannot be made.
    fn lock(&self) -> Result<Self::Lock, OpenError>;

    /// The names of the files, in no order.
    ///
    /// # Errors
    /// Those of the system, here and in every method below.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of so many zero bytes, all of them allocated; it must not exist.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Self::File>;

    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading alone, which a read-only folder allows.
    fn open_to_read(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file over another.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes free to this process; `None` if the system does not say.
    fn free_bytes(&self) -> Option<u64>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Those of the system, here and in every method below.
    fn size(&self) -> io::Result<u64>;

    /// Fills the buffer from an offset.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes the whole buffer at an offset.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes bytes and length durable (`fdatasync`). After an error nothing is known of the bytes
    /// written since the last success, and calling it again does not help.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the real file system.
pub struct RealDisk {
    dir: PathBuf,
}

impl RealDisk {
    /// The folder at a path, made if it is not there (for its owner alone).
    ///
    /// # Errors
    /// [`OpenError::ReadOnly`] or [`OpenError::Io`] if it cannot be made.
    pub fn new(dir: &Path) -> Result<Self, OpenError> {
        make_dir(dir).map_err(|error| open_error(dir, "make the state folder", error))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The lock of a [`RealDisk`], for as long as it lives.
pub struct RealLock(File);

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing would not do: a process that is being forked off at this moment has the file
        // open too. An error leaves the lock to the end of the process.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Makes a folder for its owner alone, and the ones above it.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// Flushes the names in a folder.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// An error of the system met while opening a folder.
pub(crate) fn open_error(dir: &Path, doing: &'static str, error: io::Error) -> OpenError {
    if is_read_only(&error) {
        OpenError::ReadOnly {
            dir: dir.to_owned(),
        }
    } else {
        OpenError::Io { doing, error }
    }
}

fn read_write() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Disk for RealDisk {
    type File = File;
    type Lock = RealLock;

    fn lock(&self) -> Result<RealLock, OpenError> {
        let mut file = read_write()
            .create(true)
            .truncate(false)
            .open(self.path(LOCK))
            .map_err(|error| open_error(&self.dir, "open the lock file", error))?;
        if let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            return Err(lock_error(&self.dir, &mut file, errno));
        }
        let write_pid = |file: &mut File| {
            file.set_len(0)?;
            write!(file, "{}", std::process::id())
        };
        write_pid(&mut file)
            .map_err(|error| open_error(&self.dir, "write the lock file", error))?;
        Ok(RealLock(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<File> {
        let file = read_write().create_new(true).open(self.path(name))?;
        prepare(&file, bytes).inspect_err(|_| {
            // The error to report is the first; a file left behind is removed at the next start.
            let _ = fs::remove_file(self.path(name));
        })?;
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        read_write().open(self.path(name))
    }

    fn open_to_read(&self, name: &str) -> io::Result<File> {
        File::open(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_dir(&self.dir)
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = statvfs(&self.dir).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }
}

/// Who holds a lock that could not be taken.
fn lock_error(dir: &Path, file: &mut File, errno: rustix::io::Errno) -> OpenError {
    if errno != rustix::io::Errno::WOULDBLOCK {
        return OpenError::Io {
            doing: "lock the state folder",
            error: errno.into(),
        };
    }
    let mut text = String::new();
    // A holder that has not written its number yet is only "another process".
    let _ = file.read_to_string(&mut text);
    OpenError::Locked {
        dir: dir.to_owned(),
        pid: text.trim().parse().ok(),
    }
}

/// Allocates a file and fills it with zeros: a flush inside written blocks changes no metadata.
fn prepare(file: &File, bytes: u64) -> io::Result<()> {
    allocate(file, bytes)?;
    let zeros = vec![0_u8; ZEROS];
    let mut offset = 0;
    while offset < bytes {
        let step = usize::try_from(bytes - offset).unwrap_or(ZEROS).min(ZEROS);
        file.write_all_at(&zeros[..step], offset)?;
        file.sync_data()?;
        offset += step as u64;
    }
    Ok(())
}

/// Asks for the room first, so that a full disk says so before anything is written.
#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{fallocate, FallocateFlags};
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
