//! Full disks, failing disks, full queues: with the real threads on the simulated disk.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::options;
use crate::disk::Disk;
use crate::error::{AppendError, OpenError, WaitError};
use crate::log::{Log, Threads};
use crate::options::Options;
use crate::shared::{Class, Shared};
use crate::sim::{Operation, SimDisk};
use crate::writer::{PanicGuard, Step};

const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    shared: Arc<Shared<SimDisk>>,
    threads: Threads,
}

impl Running {
    fn start(disk: &SimDisk) -> Self {
        let log = Log::open(disk.clone(), options(), 0).unwrap();
        let shared = Arc::clone(&log.shared);
        let threads = Threads::start(log.writer, log.preparer).unwrap();
        Self { shared, threads }
    }

    fn stop(mut self) {
        self.shared.begin_close();
        self.threads.join();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn readable(shared: &Shared<SimDisk>) -> bool {
    let fd = shared.signal().fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .unwrap()
        == 1
}

/// Appends until the answer is not `Busy`.
fn append(shared: &Shared<SimDisk>, class: Class) -> Result<u64, AppendError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match shared.append(class, &[(1, &[7; 400])]) {
            Err(AppendError::Busy) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

#[test]
fn on_a_full_disk_holds_stop_settlements_fit_and_all_goes_on_when_space_returns() {
    let disk = SimDisk::new(1);
    disk.set_capacity(4 * 8192);
    let running = Running::start(&disk);
    let shared = &running.shared;
    let mut holds = 0;
    while append(shared, Class::Hold).is_ok() {
        holds += 1;
    }
    assert_eq!(append(shared, Class::Hold), Err(AppendError::Full));
    let stats = shared.stats();
    assert!(
        stats.disk_full && stats.refused_full >= 2 && stats.spares == 1,
        "{stats:?}"
    );
    // A whole segment's worth of settlements still fits.
    let mut last = 0;
    for _ in 0..8 {
        last = append(shared, Class::Settle).unwrap();
    }
    shared.wait_durable(last, PATIENCE).unwrap();
    assert!(shared.fault_seen().is_none());
    disk.set_capacity(20 * 8192);
    until("there is a spare again", || shared.stats().spares >= 2);
    assert!(!shared.stats().disk_full);
    let last = append(shared, Class::Hold).unwrap();
    assert_eq!(last, holds + 9);
    shared.wait_durable(last, PATIENCE).unwrap();
    running.stop();
}

#[test]
fn even_settlements_get_full_when_every_spare_is_used_and_nothing_is_lost() {
    let disk = SimDisk::new(2);
    disk.set_capacity(3 * 8192);
    let running = Running::start(&disk);
    let mut last = 0;
    let refusal = loop {
        match append(&running.shared, Class::Settle) {
            Ok(seq) => last = seq,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal, AppendError::Full);
    running.shared.wait_durable(last, PATIENCE).unwrap();
    running.stop();
    assert!(matches!(
        Log::open(disk.clone(), options(), 0),
        Err(OpenError::NoSpace { .. })
    ));
    disk.set_capacity(4 * 8192);
    let mut log = Log::open(disk, options(), 0).unwrap();
    assert_eq!(
        super::seqs(&super::drain(&mut log)),
        (1..=last).collect::<Vec<_>>()
    );
}

#[test]
fn room_is_left_for_the_checkpoint() {
    let disk = SimDisk::new(3);
    disk.set_capacity(2 * 8192 + 5000);
    let options = Options {
        free_bytes_min: 6000,
        ..options()
    };
    let mut log = Log::open(disk.clone(), options, 0).unwrap();
    assert_eq!(log.preparer.step(), Step::Nothing);
    assert!(log.shared.stats().disk_full);
    disk.set_capacity(2 * 8192 + 6000);
    assert_eq!(log.preparer.step(), Step::Done);
}

#[test]
fn no_room_for_the_first_segment_is_said_at_the_start() {
    let disk = SimDisk::new(4);
    disk.set_capacity(8000);
    let refused = Log::open(disk, options(), 0).err().unwrap();
    assert!(
        matches!(
            refused,
            OpenError::NoSpace {
                needed: 8192,
                free: 8000
            }
        ),
        "{refused}"
    );
}

#[test]
fn a_write_without_space_is_waited_out() {
    let disk = SimDisk::new(5);
    let running = Running::start(&disk);
    let shared = &running.shared;
    disk.fail(Operation::Write, 0, 30, Errno::NOSPC.raw_os_error());
    let seq = shared.append(Class::Settle, &[(1, b"patient")]).unwrap();
    until("a hold is refused", || {
        shared.append(Class::Hold, &[(1, b"hold")]) == Err(AppendError::Full)
    });
    shared.wait_durable(seq, PATIENCE).unwrap();
    assert!(shared.fault_seen().is_none() && !shared.stats().disk_full);
    running.stop();
    let mut log = Log::open(disk, options(), 0).unwrap();
    assert_eq!(super::drain(&mut log)[0].payload, b"patient");
}

#[test]
fn closing_does_not_wait_for_space_for_ever() {
    let disk = SimDisk::new(6);
    let running = Running::start(&disk);
    disk.fail(Operation::Write, 0, u64::MAX, Errno::NOSPC.raw_os_error());
    running
        .shared
        .append(Class::Settle, &[(1, b"never")])
        .unwrap();
    until("the writer is stuck", || running.shared.stats().disk_full);
    let shared = Arc::clone(&running.shared);
    running.stop();
    assert_eq!(shared.fault_seen().unwrap().operation, "write");
}

#[test]
fn a_failed_flush_is_published_once_and_never_tried_again() {
    for (operation, errno, name) in [
        (Operation::Sync, Errno::IO, "flush"),
        (Operation::Sync, Errno::NOSPC, "flush"),
        (Operation::Write, Errno::IO, "write"),
        (Operation::Write, Errno::ROFS, "write"),
    ] {
        let disk = SimDisk::new(7);
        let running = Running::start(&disk);
        let shared = &running.shared;
        let good = shared.append(Class::Settle, &[(1, b"good")]).unwrap();
        shared.wait_durable(good, PATIENCE).unwrap();
        until("both spares are ready", || shared.stats().spares == 2);
        shared.signal().clear();
        disk.fail(operation, 0, 1, errno.raw_os_error());
        let bad = shared.append(Class::Settle, &[(1, b"bad")]).unwrap();
        let WaitError::Faulted(fault) = shared.wait_durable(bad, PATIENCE).unwrap_err() else {
            panic!("not a fault");
        };
        assert_eq!((fault.operation, fault.durable_seq), (name, good));
        assert_eq!(fault.errno, Some(errno.raw_os_error()));
        assert!(readable(shared));
        // The disk is well again; the journal stays dead.
        let refused = shared.append(Class::Settle, &[(1, b"late")]);
        assert_eq!(refused, Err(AppendError::Faulted(fault.clone())));
        assert_eq!(shared.durable_seq(), good);
        assert_eq!(shared.stats().fault, Some(fault));
        running.stop();
    }
}

#[test]
fn a_spare_that_cannot_be_made_is_a_fault_unless_it_passes() {
    let disk = SimDisk::new(8);
    let mut log = Log::open(disk.clone(), options(), 0).unwrap();
    disk.fail(Operation::Create, 0, 1, Errno::MFILE.raw_os_error());
    assert_eq!(log.preparer.step(), Step::Nothing);
    assert!(!log.shared.stats().disk_full && log.shared.fault_seen().is_none());
    assert_eq!(log.preparer.step(), Step::Done);
    disk.fail(Operation::SyncDir, 0, 1, Errno::IO.raw_os_error());
    assert_eq!(log.preparer.step(), Step::Stop);
    assert_eq!(log.shared.fault_seen().unwrap().operation, "prepare");
}

#[test]
fn a_panic_in_a_thread_is_a_fault() {
    let log = Log::open(SimDisk::new(9), options(), 0).unwrap();
    let guarded = Arc::clone(&log.shared);
    let panicked = std::thread::spawn(move || {
        let _guard = PanicGuard(guarded);
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(log.shared.fault_seen().unwrap().operation, "panic");
    // The first fault stands.
    log.shared.fault("later", &io::Error::other("no"));
    assert_eq!(log.shared.fault_seen().unwrap().operation, "panic");
}

#[test]
fn a_full_queue_is_busy_and_settlements_have_a_quarter_more() {
    let mut log = Log::open(SimDisk::new(10), options(), 0).unwrap();
    while log.preparer.step() == Step::Done {}
    let shared = Arc::clone(&log.shared);
    let fill = |class| {
        let mut taken = 0;
        while shared.append(class, &[(1, &[1; 96])]).is_ok() {
            taken += 1;
        }
        taken
    };
    // Frames of 128 bytes: 4096 bytes of queue, then 1024 more.
    assert_eq!((fill(Class::Hold), fill(Class::Settle)), (32, 8));
    assert_eq!(
        shared.append(Class::Settle, &[(1, &[1; 96])]),
        Err(AppendError::Busy)
    );
    let stats = shared.stats();
    assert_eq!((stats.queued_bytes, stats.refused_busy), (5120, 3));
    log.writer.step(false);
    assert_eq!(shared.durable_seq(), 40);
    assert!(shared.append(Class::Hold, &[(1, &[1; 96])]).is_ok());
}

#[test]
fn what_cannot_be_a_record_is_refused_at_once() {
    let mut log = Log::open(SimDisk::new(11), options(), 0).unwrap();
    log.preparer.step();
    let append = |records: &[(u8, &[u8])]| log.shared.append(Class::Settle, records);
    assert_eq!(append(&[]), Err(AppendError::Empty));
    assert_eq!(append(&[(3, b"")]), Err(AppendError::UnknownTag(3)));
    assert_eq!(append(&[(0, b"")]), Err(AppendError::UnknownTag(0)));
    let long = [0; 1001];
    assert_eq!(
        append(&[(1, &long)]),
        Err(AppendError::TooLarge {
            bytes: 1001,
            max: 1000
        })
    );
    let most = &long[..1000];
    let group = [(1, most), (1, most), (1, most), (1, most)];
    assert_eq!(
        append(&group),
        Err(AppendError::TooLarge {
            bytes: 4128,
            max: 4096
        })
    );
    assert_eq!(append(&group[..3]), Ok(3));
    log.shared.begin_close();
    assert_eq!(append(&[(1, b"")]), Err(AppendError::Closed));
}

#[test]
fn waiting_ends_with_time_with_the_end_and_with_success() {
    let mut log = Log::open(SimDisk::new(12), options(), 0).unwrap();
    log.preparer.step();
    let shared = Arc::clone(&log.shared);
    let seq = shared.append(Class::Settle, &[(1, b"x")]).unwrap();
    let short = Duration::from_millis(5);
    assert_eq!(shared.wait_durable(seq, short), Err(WaitError::TimedOut));
    assert!(!readable(&shared));
    log.writer.step(false);
    assert!(readable(&shared));
    assert_eq!(shared.wait_durable(seq, short), Ok(()));
    shared.begin_close();
    assert_eq!(
        shared.wait_durable(seq + 5, PATIENCE),
        Err(WaitError::Closed)
    );
}

#[test]
fn many_threads_get_distinct_sequences_and_all_become_durable() {
    let disk = SimDisk::new(13);
    let running = Running::start(&disk);
    let shared = &running.shared;
    let mut seqs: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let append = |_| {
                        let seq = append(shared, Class::Hold).unwrap();
                        shared.wait_durable(seq, PATIENCE).unwrap();
                        seq
                    };
                    (0..40).map(append).collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=320).collect::<Vec<_>>());
    let stats = shared.stats();
    assert_eq!(
        (stats.records, stats.durable_seq, stats.appended_seq),
        (320, 320, 320)
    );
    assert_eq!(stats.flush.count, stats.batches);
    running.stop();
    let mut log = Log::open(disk, options(), 0).unwrap();
    assert_eq!(super::drain(&mut log).len(), 320);
}

#[test]
fn a_simulated_disk_is_locked_once() {
    let disk = SimDisk::new(14);
    let lock = disk.lock().unwrap();
    assert!(matches!(disk.lock(), Err(OpenError::Locked { .. })));
    drop(lock);
    assert!(disk.lock().is_ok());
}
