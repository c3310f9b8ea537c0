//! A real file system that fills up and then turns read-only, with the checkpoint on it too.
//!
//! It is a small tmpfs in a mount namespace of its own, so no privilege is needed; where even that
//! is not allowed the test says so and passes.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cascaded_journal::{AppendError, Changes, CheckpointError, Class, Journal, OpenError, Table};
use common::{again, append, given_dir, open, options, replay, PATIENCE};

const LAUNCHER: [&str; 8] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    "mount -t tmpfs -o size=2m tmpfs \"$JOURNAL_TEST_DIR\" && echo mounted && exec \"$@\"",
    "sh",
];

/// Fills the file system to the last page.
fn fill(dir: &Path) {
    use std::io::Write;
    let mut filler = fs::File::create(dir.join("filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn fill_and_recover_space(dir: &Path) -> u64 {
    let state = dir.join("state");
    let (journal, _) = open(&state);
    append(&journal, Class::Hold, b"before").unwrap();
    until("both spares are ready", || journal.stats().spares == 2);
    fill(dir);
    while append(&journal, Class::Hold, &[1; 2000]).is_ok() {}
    assert_eq!(
        append(&journal, Class::Hold, &[1; 2000]),
        Err(AppendError::Full)
    );
    let settled = append(&journal, Class::Settle, b"settled").unwrap();
    journal.wait_durable(settled, PATIENCE).unwrap();
    let value = vec![2; 100_000];
    let big = Changes {
        puts: vec![(Table::Meta, b"k", &value)],
        deletes: vec![],
    };
    let refused = journal.checkpoint(settled, &big).unwrap_err();
    assert!(matches!(refused, CheckpointError::NoSpace), "{refused}");
    assert_eq!((journal.fault(), journal.checkpoint_seq()), (None, Some(0)));
    fs::remove_file(dir.join("filler")).unwrap();
    journal.checkpoint(settled, &big).unwrap();
    until("there is room again", || !journal.stats().disk_full);
    let last = append(&journal, Class::Hold, b"after").unwrap();
    journal.wait_durable(last, PATIENCE).unwrap();
    journal.close().unwrap();
    last
}

fn read_only(dir: &Path) {
    let remounted = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(dir)
        .status();
    assert!(remounted.unwrap().success());
    let refused = Journal::open(&dir.join("state"), options()).err().unwrap();
    assert!(matches!(refused, OpenError::ReadOnly { .. }), "{refused}");
    let refused = Journal::open(&dir.join("new"), options()).err().unwrap();
    assert!(matches!(refused, OpenError::ReadOnly { .. }), "{refused}");
    let verified = Journal::verify(&dir.join("state"), &options()).unwrap();
    assert_eq!(verified.entries, [0, 0, 1, 0]);
}

#[test]
fn child_on_a_small_file_system() {
    let Some(dir) = given_dir() else { return };
    let last = fill_and_recover_space(&dir);
    let (journal, mut recovery) = open(&dir.join("state"));
    let records = replay(&mut recovery);
    assert_eq!(
        records.last().map(|r| (r.seq, &r.payload[..])),
        Some((last, &b"after"[..]))
    );
    drop((journal, recovery));
    read_only(&dir);
    println!("survived");
}

#[test]
fn a_real_disk_fills_and_empties_and_turns_read_only() {
    if Command::new("unshare").arg("--version").output().is_err() {
        eprintln!("skipped: there is no unshare here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let child = again("child_on_a_small_file_system", dir.path(), &LAUNCHER);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains("mounted") {
        eprintln!("skipped: no mount namespace is allowed here");
        return;
    }
    assert!(
        output.status.success() && text.contains("survived"),
        "{text}"
    );
}
