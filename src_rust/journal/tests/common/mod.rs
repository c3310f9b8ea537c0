//! What the tests on real files share.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cascaded_journal::{AppendError, Class, Journal, Options, Record, Recovery};

/// The one record type of these tests.
pub const TAG: u8 = 7;
/// Longer than any step takes, even on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Small segments, so that a short run rotates and retires some.
pub fn options() -> Options {
    Options {
        record_tags: vec![TAG],
        segment_bytes: 64 << 10,
        queue_bytes_max: 64 << 10,
        record_bytes_max: 4 << 10,
        free_bytes_min: 0,
        space_retry: Duration::from_millis(5),
        map_bytes: 64 << 20,
        ..Options::default()
    }
}

/// Opens a folder that must open.
pub fn open(dir: &Path) -> (Journal, Recovery) {
    Journal::open(dir, options()).unwrap_or_else(|error| panic!("{error}"))
}

/// Everything there is to replay.
pub fn replay(recovery: &mut Recovery) -> Vec<Record> {
    recovery
        .records
        .by_ref()
        .collect::<Result<_, _>>()
        .expect("records that can be read")
}

/// Appends a record, waiting while the journal is busy.
pub fn append(journal: &Journal, class: Class, payload: &[u8]) -> Result<u64, AppendError> {
    loop {
        match journal.append(class, TAG, payload) {
            Err(AppendError::Busy) => std::thread::sleep(Duration::from_micros(200)),
            other => return other,
        }
    }
}

/// Runs one test of this binary again as a process of its own, in `dir`.
///
/// The test sees its folder in `JOURNAL_TEST_DIR` and must return at once without it.
pub fn again(test: &str, dir: &Path, launcher: &[&str]) -> Child {
    let binary = std::env::current_exe().expect("a test binary");
    let binary = binary.to_str().expect("a readable path");
    let mut line: Vec<&str> = launcher.to_vec();
    line.extend([binary, test, "--exact", "--nocapture", "--test-threads=1"]);
    Command::new(line[0])
        .args(&line[1..])
        .env("JOURNAL_TEST_DIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", line[0]))
}

/// The folder given by [`again`], in the process that it started.
pub fn given_dir() -> Option<std::path::PathBuf> {
    std::env::var_os("JOURNAL_TEST_DIR").map(Into::into)
}
