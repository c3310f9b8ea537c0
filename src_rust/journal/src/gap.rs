//! The marker of forgotten spend: a restored backup or a cut journal must not start by itself.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::disk::sync_dir;
use crate::Seq;

const MARKER: &str = "gap";

/// Spend after a record that this state no longer knows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last record that is there; 0 if the marker could not be read.
    pub upto_seq: Seq,
    /// `backup` or `cut`.
    pub reason: String,
}

impl Gap {
    /// The gap a folder is marked with. A marker that cannot be understood still is one.
    pub(crate) fn read(dir: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(dir.join(MARKER)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => String::from_utf8_lossy(&other?).into_owned(),
        };
        let parsed = text.trim().split_once(' ').and_then(|(reason, seq)| {
            Some(Self {
                upto_seq: seq.parse().ok()?,
                reason: reason.to_owned(),
            })
        });
        let unread = || Self {
            upto_seq: 0,
            reason: "gap marker that cannot be read".to_owned(),
        };
        Ok(Some(parsed.unwrap_or_else(unread)))
    }

    /// Marks a folder, flushed.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        write_synced(
            &dir.join(MARKER),
            format!("{} {}\n", self.reason, self.upto_seq).as_bytes(),
        )?;
        sync_dir(dir)
    }

    /// Removes the marker, flushed.
    pub(crate) fn remove(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(MARKER)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| sync_dir(dir)),
        }
    }
}

/// Writes a whole file and flushes it.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)?;
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_reads_back_and_a_broken_one_still_marks() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Gap::read(dir.path()).unwrap(), None);
        let gap = Gap {
            upto_seq: 77,
            reason: "backup".to_owned(),
        };
        gap.write(dir.path()).unwrap();
        assert_eq!(Gap::read(dir.path()).unwrap(), Some(gap));
        for broken in ["", "backup", "backup x", "\u{0}\u{1}"] {
            fs::write(dir.path().join(MARKER), broken).unwrap();
            assert_eq!(Gap::read(dir.path()).unwrap().unwrap().upto_seq, 0);
        }
        Gap::remove(dir.path()).unwrap();
        Gap::remove(dir.path()).unwrap();
        assert_eq!(Gap::read(dir.path()).unwrap(), None);
    }
}
