//! Bytes that rot, files that go, and builds that are too old: what starts and what refuses to.

use std::io;

use super::{drain, options, seqs};
use crate::disk::Disk;
use crate::error::{Damage, Evidence, OpenError};
use crate::frame::{peek_seq, Frame, SegmentHeader, FORMAT_VERSION, SEGMENT_HEADER};
use crate::log::{retire, Log};
use crate::options::Options;
use crate::planted::{self, Bug};
use crate::recover::cut;
use crate::scan::segment_name;
use crate::shared::Class;
use crate::sim::{Random, SimDisk};
use crate::Seq;

/// A disk with so many batches of two records each, all flushed.
fn written(batches: u64) -> SimDisk {
    let disk = SimDisk::new(batches);
    let mut log = Log::open(disk.clone(), options(), 0).unwrap();
    for number in 0..batches {
        log.preparer.step();
        let payload = vec![number as u8; 300];
        log.shared
            .append(Class::Settle, &[(1, &payload), (2, b"second")])
            .unwrap();
        log.writer.step(false);
    }
    assert_eq!(log.shared.durable_seq(), 2 * batches);
    disk
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list().unwrap()
}

/// Where the frame with a sequence is: file and offset.
fn find(disk: &SimDisk, seq: Seq) -> (String, usize) {
    for name in names(disk) {
        let bytes = disk.read(&name).unwrap();
        let at = (SEGMENT_HEADER..bytes.len())
            .step_by(8)
            .find(|at| peek_seq(&bytes, *at) == Some(seq) && Frame::decode(&bytes, *at).is_some());
        if let Some(at) = at {
            return (name, at);
        }
    }
    panic!("{seq} is not there");
}

fn flip(disk: &SimDisk, name: &str, bit: usize) {
    let mut bytes = disk.read(name).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    disk.put(name, &bytes);
}

fn damage(disk: &SimDisk, floor: Seq) -> Damage {
    match Log::open(disk.clone(), options(), floor) {
        Err(OpenError::Damaged(damage)) => damage,
        Err(other) => panic!("{other}"),
        Ok(log) => panic!("it starts at {}", log.shared.durable_seq()),
    }
}

fn replayed(disk: &SimDisk, floor: Seq) -> Vec<Seq> {
    seqs(&drain(
        &mut Log::open(disk.clone(), options(), floor).unwrap(),
    ))
}

/// Flips one bit of a random record that was acknowledged before the last batch. Returns whether
/// the start was refused at that record.
fn rot_is_refused(seed: u64) -> bool {
    let mut random = Random::new(seed);
    let disk = written(4 + random.below(8));
    let last = 2 * (4 + Random::new(seed).below(8));
    let seq = 1 + random.below(last - 2);
    let (name, at) = find(&disk, seq);
    let bits = Frame::decode(&disk.read(&name).unwrap(), at)
        .unwrap()
        .bytes() as u64
        * 8;
    flip(&disk, &name, at * 8 + random.below(bits) as usize);
    match Log::open(disk.clone(), options(), 0) {
        Err(OpenError::Damaged(found)) => {
            found.seq == seq && found.segment == name && found.offset == at as u64
        }
        _ => false,
    }
}

#[test]
fn a_rotten_record_before_the_last_batch_is_always_refused() {
    for seed in 0..150 {
        assert!(rot_is_refused(seed), "seed {seed}");
    }
}

#[test]
fn taking_damage_for_a_torn_tail_is_caught() {
    let missed = planted::with(Bug::TruncateAtDamage, || {
        (0..20).any(|seed| !rot_is_refused(seed))
    });
    assert!(missed);
}

#[test]
fn a_hole_in_the_last_batch_is_a_torn_tail_and_the_whole_batch_goes() {
    let disk = SimDisk::new(1);
    let mut log = Log::open(disk.clone(), options(), 0).unwrap();
    log.preparer.step();
    for payloads in [vec![&b"one"[..]], vec![&[7; 90][..]; 6]] {
        let records: Vec<_> = payloads.into_iter().map(|p| (1, p)).collect();
        log.shared.append(Class::Settle, &records).unwrap();
        log.writer.step(false);
    }
    // Frames 5 to 7 stay readable behind the hole, yet none of them promises frame 4.
    let (name, at) = find(&disk, 4);
    flip(&disk, &name, at * 8);
    let log = Log::open(disk.clone(), options(), 0).unwrap();
    assert_eq!((log.shared.durable_seq(), log.torn_bytes > 300), (1, true));
    drop(log);
    assert_eq!(replayed(&disk, 0), [1]);
}

#[test]
fn an_unreadable_header_before_frames_is_refused() {
    let disk = written(9);
    let (name, _) = find(&disk, 18);
    flip(&disk, &name, 40);
    let found = damage(&disk, 0);
    assert_eq!((found.evidence, &found.segment), (Evidence::Header, &name));
    // Below the checkpoint it does not matter.
    let (name, _) = find(&disk, 1);
    let disk = written(30);
    flip(&disk, &name, 40);
    let (last, _) = find(&disk, 60);
    let first_seq = header_of(&disk, &last).first_seq;
    assert_eq!(
        replayed(&disk, first_seq),
        (first_seq + 1..=60).collect::<Vec<_>>()
    );
}

fn header_of(disk: &SimDisk, name: &str) -> SegmentHeader {
    use crate::frame::HeaderRead;
    match SegmentHeader::decode(&disk.read(name).unwrap()) {
        HeaderRead::Valid(header) => header,
        other => panic!("{other:?}"),
    }
}

#[test]
fn missing_segments_are_refused_by_what_comes_after_them() {
    let disk = written(30);
    let (first, _) = find(&disk, 1);
    let (second, _) = find(&disk, header_of(&disk, &first).first_seq + 30);
    assert_ne!(first, second);
    let kept = disk.read(&second).unwrap();
    disk.remove(&second).unwrap();
    assert_eq!(damage(&disk, 0).evidence, Evidence::LaterSegment);
    disk.put(&second, &kept);
    disk.remove(&first).unwrap();
    let found = damage(&disk, 0);
    assert_eq!((found.seq, found.evidence), (1, Evidence::LaterSegment));
    for name in names(&disk) {
        disk.remove(&name).unwrap();
    }
    let found = damage(&disk, 7);
    assert_eq!((found.seq, found.evidence), (8, Evidence::Checkpoint));
    assert_eq!(replayed(&disk, 0), []);
}

#[test]
fn a_journal_that_ends_before_its_checkpoint_is_refused() {
    let disk = written(3);
    assert_eq!(replayed(&disk, 6), []);
    let found = damage(&disk, 7);
    assert_eq!(
        (found.seq, found.durable_seq, found.evidence),
        (7, 7, Evidence::Checkpoint)
    );
}

#[test]
fn damage_says_what_happened_and_how_to_repair() {
    let disk = written(9);
    let (name, at) = find(&disk, 3);
    flip(&disk, &name, at * 8 + 300);
    let text = damage(&disk, 0).to_string();
    for part in [
        &name[..],
        &format!("byte {at}"),
        "record 3",
        "Restore a backup",
        "cut",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn unknown_types_and_newer_builds_are_refused() {
    let disk = written(2);
    let refused = |options: Options| match Log::open(disk.clone(), options, 0) {
        Err(error) => error,
        Ok(_) => panic!("it starts"),
    };
    let error = refused(Options {
        record_tags: vec![1],
        ..options()
    });
    assert!(
        matches!(error, OpenError::UnknownRecord { tag: 2, seq: 2, .. }),
        "{error}"
    );
    let error = refused(Options {
        schema: 0,
        ..options()
    });
    assert!(matches!(
        error,
        OpenError::Newer {
            what: "schema",
            found: 1,
            known: 0,
            ..
        }
    ));
    let (name, _) = find(&disk, 1);
    let newer = SegmentHeader {
        version: FORMAT_VERSION + 1,
        ..header_of(&disk, &name)
    };
    let mut bytes = disk.read(&name).unwrap();
    bytes[..SEGMENT_HEADER].copy_from_slice(&newer.encode());
    disk.put(&name, &bytes);
    let error = refused(options());
    assert!(matches!(
        error,
        OpenError::Newer {
            what: "format",
            found: 2,
            known: 1,
            ..
        }
    ));
}

#[test]
fn older_schemas_are_replayed_with_their_number() {
    let disk = written(1);
    let newer = Options {
        schema: 4,
        ..options()
    };
    let mut log = Log::open(disk.clone(), newer.clone(), 0).unwrap();
    log.preparer.step();
    log.shared.append(Class::Settle, &[(9, b"new")]).unwrap();
    log.writer.step(false);
    let mut log = Log::open(disk, newer, 0).unwrap();
    let found: Vec<_> = drain(&mut log)
        .into_iter()
        .map(|r| (r.seq, r.schema))
        .collect();
    assert_eq!(found, [(1, 1), (2, 1), (3, 4)]);
}

#[test]
fn a_segment_under_another_name_is_refused() {
    let disk = written(3);
    let (name, _) = find(&disk, 1);
    disk.rename(&name, &segment_name(99)).unwrap();
    assert_eq!(damage(&disk, 0).evidence, Evidence::Header);
}

#[test]
fn restarts_leave_no_files_behind() {
    let disk = written(2);
    disk.put("spare.tmp", &[1; 100]);
    disk.put("journal-00000000000000ff", &[1; 100]);
    disk.put("not-ours", b"stays");
    let mut counts = Vec::new();
    for _ in 0..6 {
        let mut log = Log::open(disk.clone(), options(), 0).unwrap();
        assert_eq!(seqs(&drain(&mut log)), [1, 2, 3, 4]);
        while log.preparer.step() == crate::writer::Step::Done {}
        counts.push(names(&disk).len());
    }
    assert_eq!(counts[1..], [5; 5], "{:?}", names(&disk));
    assert!(disk.read("spare.tmp").is_none() && disk.read("not-ours").is_some());
}

#[test]
fn stale_segments_that_were_not_removed_are_skipped_and_removed() {
    let disk = written(30);
    let (last, _) = find(&disk, 60);
    let (first, _) = find(&disk, 1);
    assert_eq!(replayed(&disk, 58), [59, 60]);
    assert!(disk.read(&first).is_none() && disk.read(&last).is_some());
}

#[test]
fn retiring_keeps_what_is_needed() {
    let disk = written(30);
    let log = Log::open(disk.clone(), options(), 0).unwrap();
    let (second, _) = find(&disk, 30);
    let first_seq = header_of(&disk, &second).first_seq;
    retire(&log.shared, first_seq - 2).unwrap();
    drop(log);
    assert!(disk.read(&find(&disk, first_seq - 1).0).is_some());
    let log = Log::open(disk.clone(), options(), first_seq - 2).unwrap();
    retire(&log.shared, first_seq - 1).unwrap();
    let kept = names(&disk).iter().any(|name| {
        let bytes = disk.read(name).unwrap();
        Frame::decode(&bytes, SEGMENT_HEADER).is_some_and(|frame| frame.seq < first_seq)
    });
    assert!(!kept);
    drop(log);
    assert_eq!(
        replayed(&disk, first_seq - 1),
        (first_seq..=60).collect::<Vec<_>>()
    );
}

#[test]
fn a_cut_keeps_what_is_before_the_damage_and_sets_the_rest_aside() {
    let disk = written(30);
    assert!(cut(&disk, &options(), 0, |_| panic!("nothing to announce"))
        .unwrap()
        .is_none());
    let (name, at) = find(&disk, 9);
    flip(&disk, &name, at * 8 + 64);
    let before = names(&disk).len();
    let mut announced = 0;
    let done = cut(&disk, &options(), 0, |seq| {
        announced = seq;
        Ok(())
    });
    let done = done.unwrap().unwrap();
    // Batches are pairs: 9 was the first of its own.
    assert_eq!((done.last_seq, announced, done.damage.seq), (8, 8, 9));
    assert!(!done.set_aside.is_empty() && done.set_aside.iter().all(|n| n.starts_with("cut-")));
    assert!(names(&disk).len() >= before);
    assert_eq!(replayed(&disk, 0), (1..=8).collect::<Vec<_>>());
    assert!(cut(&disk, &options(), 0, |_| Ok(())).unwrap().is_none());
}

#[test]
fn a_cut_below_the_checkpoint_goes_on_behind_it() {
    let disk = written(5);
    let (name, at) = find(&disk, 5);
    flip(&disk, &name, at * 8 + 64);
    assert_eq!(damage(&disk, 7).evidence, Evidence::LaterFrame);
    let done = cut(&disk, &options(), 7, |_| Ok(())).unwrap().unwrap();
    assert_eq!(
        (done.last_seq, &done.set_aside[..]),
        (7, &[format!("cut-{name}")][..])
    );
    let mut log = Log::open(disk.clone(), options(), 7).unwrap();
    log.preparer.step();
    assert_eq!(log.shared.append(Class::Settle, &[(1, b"on")]).unwrap(), 8);
    log.writer.step(false);
    assert_eq!(replayed(&disk, 7), [8]);
}

#[test]
fn a_cut_that_cannot_be_announced_changes_nothing() {
    let disk = written(5);
    let (name, at) = find(&disk, 5);
    flip(&disk, &name, at * 8 + 64);
    let before = names(&disk);
    assert!(cut(&disk, &options(), 0, |_| Err(io::Error::other("no"))).is_err());
    assert_eq!(names(&disk), before);
    assert_eq!(damage(&disk, 0).seq, 5);
}
