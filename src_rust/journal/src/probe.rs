//! How long a flush takes on this disk, tried before anything depends on it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The file that is written for it.
const NAME: &str = "flush-probe";
/// Flushes that are timed, after one that allocates the block.
const FLUSHES: usize = 9;
const BLOCK: [u8; 4096] = [0; 4096];
/// A slow disk is asked no longer than this.
const LONGEST: Duration = Duration::from_secs(1);

/// The median time of a few flushes of one block in a folder.
///
/// # Errors
/// Those of the system: such a disk will not do for a journal either, unless it is only full.
pub fn flush_time(dir: &Path) -> io::Result<Duration> {
    let path = dir.join(NAME);
    let timed = time_flushes(&path);
    let removed = fs::remove_file(&path);
    timed.and_then(|median| removed.map(|()| median))
}

fn time_flushes(path: &Path) -> io::Result<Duration> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).open(path)?;
    file.write_all_at(&BLOCK, 0)?;
    file.sync_data()?;
    let started = Instant::now();
    let mut times = Vec::with_capacity(FLUSHES);
    while times.is_empty() || times.len() < FLUSHES && started.elapsed() < LONGEST {
        let began = Instant::now();
        file.write_all_at(&BLOCK, 0)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_timed_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert!(flush_time(dir.path()).unwrap() > Duration::ZERO);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(flush_time(&dir.path().join("none")).is_err());
    }
}
