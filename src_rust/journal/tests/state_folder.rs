//! The journal and its checkpoint together, on real files.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::Path;

use cascaded_journal::{
    AppendError, Changes, CheckpointError, Class, Evidence, Gap, Journal, OpenError, Options,
    Table, WaitError,
};
use common::{again, append, given_dir, open, options, replay, PATIENCE, TAG};

/// Appends one record per payload, and waits for the last.
fn write(journal: &Journal, payloads: &[&[u8]]) -> u64 {
    let mut last = 0;
    for payload in payloads {
        last = append(journal, Class::Settle, payload).unwrap();
    }
    journal.wait_durable(last, PATIENCE).unwrap();
    last
}

fn payloads(records: &[cascaded_journal::Record]) -> Vec<&[u8]> {
    records.iter().map(|record| &record.payload[..]).collect()
}

fn segments(dir: &Path) -> usize {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("journal-"))
        .count()
}

#[test]
fn what_was_durable_is_there_again_and_a_checkpoint_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, mut recovery) = open(dir.path());
    assert_eq!(
        (
            recovery.checkpoint_seq,
            recovery.last_seq,
            recovery.incarnation
        ),
        (0, 0, 1)
    );
    assert!(replay(&mut recovery).is_empty() && recovery.gap.is_none());
    drop(recovery);
    assert_eq!(write(&journal, &[b"a", b"b", b"c"]), 3);
    let changes = Changes {
        puts: vec![
            (Table::Counters, b"user 7", b"120"),
            (Table::Holds, b"h1", b"open"),
            (Table::Holds, b"h2", b"open"),
        ],
        deletes: vec![(Table::Holds, b"h2"), (Table::Days, b"never there")],
    };
    assert!(journal
        .checkpoint(2, &changes)
        .unwrap()
        .retire_error
        .is_none());
    assert_eq!(journal.checkpoint_seq(), Some(2));
    assert_eq!(
        journal.get(Table::Counters, b"user 7").unwrap().unwrap(),
        b"120"
    );
    assert_eq!(journal.get(Table::Counters, b"user 8").unwrap(), None);
    journal.close().unwrap();
    drop(journal);

    let (journal, mut recovery) = open(dir.path());
    assert_eq!((recovery.checkpoint_seq, recovery.incarnation), (2, 2));
    // 4 marks the clean end.
    assert_eq!(recovery.last_seq, 4);
    assert_eq!(payloads(&replay(&mut recovery)), [b"c"]);
    let holds: Vec<_> = recovery
        .snapshot(Table::Holds)
        .map(Result::unwrap)
        .collect();
    assert_eq!(holds, [(b"h1".to_vec(), b"open".to_vec())]);
    assert_eq!(recovery.snapshot(Table::Meta).count(), 0);
    assert_eq!(write(&journal, &[b"d"]), 5);
}

#[test]
fn a_table_is_read_in_order_whatever_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let keys: Vec<[u8; 4]> = (0..2500_u32).rev().map(u32::to_be_bytes).collect();
    let puts = keys
        .iter()
        .map(|key| (Table::Days, &key[..], &key[2..]))
        .collect();
    journal
        .checkpoint(
            0,
            &Changes {
                puts,
                deletes: vec![],
            },
        )
        .unwrap();
    let found: Vec<_> = journal
        .entries(Table::Days)
        .map(|entry| entry.unwrap().0)
        .collect();
    let expected: Vec<_> = (0..2500_u32).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_checkpoint_never_runs_ahead_or_back_and_says_why_it_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    write(&journal, &[b"a", b"b"]);
    let none = Changes::default();
    let ahead = journal.checkpoint(3, &none).unwrap_err();
    assert!(matches!(
        ahead,
        CheckpointError::Ahead {
            upto_seq: 3,
            durable_seq: 2
        }
    ));
    journal.checkpoint(2, &none).unwrap();
    journal.checkpoint(2, &none).unwrap();
    let back = journal.checkpoint(1, &none).unwrap_err();
    assert!(matches!(
        back,
        CheckpointError::Behind {
            upto_seq: 1,
            checkpoint_seq: 2
        }
    ));
    for key in [&b""[..], &[1; 512]] {
        let changes = Changes {
            puts: vec![(Table::Meta, key, b"")],
            deletes: vec![],
        };
        let bad = journal.checkpoint(2, &changes).unwrap_err();
        assert!(matches!(bad, CheckpointError::BadKey { bytes } if bytes == key.len()));
    }
    assert!(journal.fault().is_none());
    journal.close().unwrap();
    assert!(matches!(
        journal.checkpoint(2, &none),
        Err(CheckpointError::Closed)
    ));
    assert_eq!(
        journal.append(Class::Settle, TAG, b"x"),
        Err(AppendError::Closed)
    );
    assert_eq!(journal.wait_durable(99, PATIENCE), Err(WaitError::Closed));
    assert_eq!(journal.checkpoint_seq(), None);
    journal.close().unwrap();
}

#[test]
fn a_full_map_leaves_the_last_checkpoint_and_is_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options {
        map_bytes: 256 << 10,
        ..options()
    };
    let (journal, _) = Journal::open(dir.path(), small).unwrap();
    write(&journal, &[b"a"]);
    let value = vec![1; 300 << 10];
    let big = Changes {
        puts: vec![(Table::Meta, b"big", &value)],
        deletes: vec![],
    };
    assert!(matches!(
        journal.checkpoint(1, &big),
        Err(CheckpointError::MapFull)
    ));
    assert_eq!((journal.checkpoint_seq(), journal.fault()), (Some(0), None));
    let small = Changes {
        puts: vec![(Table::Meta, b"k", b"v")],
        deletes: vec![],
    };
    journal.checkpoint(1, &small).unwrap();
    assert_eq!(journal.get(Table::Meta, b"k").unwrap().unwrap(), b"v");
}

#[test]
fn checkpoints_retire_segments_and_the_journal_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let payload = [5; 4000];
    let mut most = 0;
    for _ in 0..30 {
        let last = write(&journal, &[&payload[..]; 10]);
        journal.checkpoint(last, &Changes::default()).unwrap();
        most = most.max(segments(dir.path()));
    }
    // Two spares, the active one, and at most two that wait for their checkpoint.
    assert!(most <= 5, "{most}");
    let stats = journal.stats();
    assert_eq!(
        (stats.records, stats.durable_seq, stats.segments),
        (300, 300, 1)
    );
    assert!(stats.flush.count > 0 && stats.flush.quantile_ns(500).is_some());
    assert!(stats.free_bytes.is_some());
}

#[test]
fn an_event_loop_can_watch_the_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    assert!(journal.event_fd().as_raw_fd() > 2);
    let seq = journal.append(Class::Hold, TAG, b"x").unwrap();
    let fd = journal.event_fd();
    let mut fds = [rustix::event::PollFd::new(
        &fd,
        rustix::event::PollFlags::IN,
    )];
    while journal.durable_seq() < seq {
        assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1);
        journal.clear_event();
    }
}

#[test]
fn groups_are_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let last = journal
        .append_group(Class::Hold, &[(TAG, b"a"), (TAG, b"b")])
        .unwrap();
    assert_eq!(last, 2);
    journal.wait_durable(last, PATIENCE).unwrap();
    assert_eq!(
        journal.append_group(Class::Hold, &[]),
        Err(AppendError::Empty)
    );
}

#[test]
fn a_backup_is_whole_is_marked_and_needs_its_gap_charged() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let copy = dir.path().join("copy");
    let (journal, _) = open(&state);
    write(&journal, &[b"a", b"b"]);
    let changes = Changes {
        puts: vec![(Table::Meta, b"k", b"v")],
        deletes: vec![],
    };
    journal.checkpoint(1, &changes).unwrap();
    let backup = journal.backup(&copy).unwrap();
    assert_eq!((backup.checkpoint_seq, backup.upto_seq), (1, 2));
    write(&journal, &[b"after"]);
    assert!(matches!(journal.backup(&copy), Err(CheckpointError::Io(_))));

    let verified = Journal::verify(&copy, &options()).unwrap();
    assert_eq!(
        (verified.checkpoint_seq, verified.last_seq, verified.records),
        (1, 2, 1)
    );
    assert_eq!(verified.entries, [0, 0, 1, 0]);
    let gap = Gap {
        upto_seq: 2,
        reason: "backup".to_owned(),
    };
    assert_eq!(verified.gap, Some(gap.clone()));

    let refused = Journal::open(&copy, options()).err().unwrap();
    assert!(
        matches!(refused, OpenError::GapUncharged { upto_seq: 2, .. }),
        "{refused}"
    );
    let accept = Options {
        accept_gap: true,
        ..options()
    };
    for _ in 0..2 {
        // Until the gap is charged, every start asks again.
        let (restored, mut recovery) = Journal::open(&copy, accept.clone()).unwrap();
        assert_eq!(recovery.gap, Some(gap.clone()));
        assert_eq!(payloads(&replay(&mut recovery)), [b"b"]);
        drop(recovery);
        restored.close().unwrap();
    }
    let (restored, recovery) = Journal::open(&copy, accept).unwrap();
    drop(recovery);
    restored.gap_charged().unwrap();
    drop(restored);
    assert!(open(&copy).1.gap.is_none());
}

#[test]
fn backups_are_whole_while_the_journal_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(&dir.path().join("state"));
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            for round in 0..60_u64 {
                let last = write(&journal, &[&[round as u8; 3000][..]; 8]);
                let value = last.to_le_bytes();
                let puts = vec![(Table::Meta, &b"last"[..], &value[..])];
                journal
                    .checkpoint(
                        last,
                        &Changes {
                            puts,
                            deletes: vec![],
                        },
                    )
                    .unwrap();
            }
        });
        let mut number = 0;
        while !busy.is_finished() || number < 2 {
            number += 1;
            let copy = dir.path().join(format!("copy {number}"));
            let backup = journal.backup(&copy).unwrap();
            let verified = Journal::verify(&copy, &options()).unwrap();
            assert_eq!(verified.last_seq, backup.upto_seq);
            assert_eq!(verified.checkpoint_seq, backup.checkpoint_seq);
            assert_eq!(verified.records, backup.upto_seq - backup.checkpoint_seq);
            fs::remove_dir_all(&copy).unwrap();
        }
    });
}

/// Turns one bit in the record that holds this payload.
fn rot(dir: &Path, payload: &[u8]) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if !path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("journal-")
        {
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes
            .windows(payload.len())
            .position(|window| window == payload)
        {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("no such record");
}

#[test]
fn damage_is_refused_then_cut_and_the_gap_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    for payload in [&b"first record"[..], b"second record", b"third record"] {
        write(&journal, &[payload]);
    }
    drop(journal);
    assert!(Journal::cut(dir.path(), &options()).unwrap().is_none());
    rot(dir.path(), b"second record");
    let refused = Journal::open(dir.path(), options()).err().unwrap();
    let OpenError::Damaged(damage) = &refused else {
        panic!("{refused}")
    };
    assert_eq!((damage.seq, damage.evidence), (2, Evidence::LaterFrame));
    assert!(matches!(
        Journal::verify(dir.path(), &options()),
        Err(OpenError::Damaged(_))
    ));
    let cut = Journal::cut(dir.path(), &options()).unwrap().unwrap();
    assert_eq!(cut.last_seq, 1);
    let refused = Journal::open(dir.path(), options()).err().unwrap();
    assert!(refused.to_string().contains("gap charge"), "{refused}");
    let accept = Options {
        accept_gap: true,
        ..options()
    };
    let (_journal, mut recovery) = Journal::open(dir.path(), accept).unwrap();
    assert_eq!(recovery.gap.as_ref().unwrap().reason, "cut");
    assert_eq!(payloads(&replay(&mut recovery)), [b"first record"]);
}

#[test]
fn verify_reads_all_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    write(&journal, &[b"a", b"b"]);
    let held = Journal::verify(dir.path(), &options()).unwrap_err();
    let me = std::process::id();
    assert!(
        matches!(held, OpenError::Locked { pid: Some(pid), .. } if pid == me),
        "{held}"
    );
    drop(journal);
    let listing = || {
        let entries = fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        let mut all: Vec<_> = entries
            .map(|e| (e.file_name(), e.metadata().unwrap().len()))
            .collect();
        all.sort();
        all
    };
    let before = listing();
    let verified = Journal::verify(dir.path(), &options()).unwrap();
    assert_eq!(
        (verified.last_seq, verified.records, verified.torn_bytes),
        (3, 2, 0)
    );
    assert_eq!(listing(), before);
    assert!(Journal::verify(&dir.path().join("not there"), &options()).is_err());
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(
        Journal::verify(empty.path(), &options()),
        Err(OpenError::Checkpoint(_))
    ));
}

#[test]
fn a_checkpoint_file_that_was_cut_or_overwritten_is_refused_without_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let value = vec![3; 200_000];
    let changes = Changes {
        puts: vec![(Table::Meta, b"k", &value)],
        deletes: vec![],
    };
    journal.checkpoint(0, &changes).unwrap();
    drop(journal);
    let data = dir.path().join("checkpoint/data.mdb");
    let whole = fs::read(&data).unwrap();
    for kept in [9_000, 8192, 4096, 100] {
        fs::write(&data, &whole[..kept]).unwrap();
        let opened = Journal::open(dir.path(), options());
        assert!(
            matches!(opened, Err(OpenError::Checkpoint(_))),
            "{kept} bytes"
        );
    }
    fs::write(&data, vec![0xAB; whole.len()]).unwrap();
    let refused = Journal::open(dir.path(), options()).err().unwrap();
    assert!(
        matches!(refused, OpenError::Checkpoint(CheckpointError::Damaged(_))),
        "{refused}"
    );
}

#[test]
fn bad_options_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let bad = Options {
        segment_bytes: 5,
        ..options()
    };
    assert!(matches!(
        Journal::open(&path, bad.clone()),
        Err(OpenError::BadOption(_))
    ));
    assert!(matches!(
        Journal::verify(&path, &bad),
        Err(OpenError::BadOption(_))
    ));
    assert!(matches!(
        Journal::cut(&path, &bad),
        Err(OpenError::BadOption(_))
    ));
    assert!(!path.exists());
}

#[test]
fn child_holds_the_state() {
    let Some(dir) = given_dir() else { return };
    let (journal, _) = open(&dir);
    println!("held by {}", std::process::id());
    std::thread::sleep(PATIENCE);
    drop(journal);
}

#[test]
fn a_second_process_is_refused_with_the_holders_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = again("child_holds_the_state", dir.path(), &[]);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let held = lines
        .map(Result::unwrap)
        .find(|line| line.contains("held by"));
    assert!(held.is_some());
    let refused = Journal::open(dir.path(), options()).err().unwrap();
    let pid = child.id();
    assert!(
        matches!(refused, OpenError::Locked { pid: Some(p), .. } if p == pid),
        "{refused}"
    );
    assert!(
        refused.to_string().contains(&format!("process {pid}")),
        "{refused}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let (journal, _) = open(dir.path());
    let refused = Journal::open(dir.path(), options()).err().unwrap();
    assert!(
        matches!(refused, OpenError::Locked { .. }),
        "twice in one process: {refused}"
    );
    drop(journal);
}
