//! Disks that are full, and calls that are wrong.

use cascaded_core::ledger::{Label, LedgerError};

use super::*;
use crate::Clock;
use crate::{EngineError, Gate, OpenError, SystemClock, Unavailable};

#[test]
fn a_settlement_is_taken_where_a_hold_is_refused() {
    let root = tempfile::tempdir().expect("room");
    let (engine, _) = open(root.path(), &clock());
    let wide = vec![counter("u", WindowKind::Total, i64::MAX)];
    let set = engine.compile(wide, vec![]).expect("good limits");
    let mut holds = Vec::new();
    // Faster than any disk, until the queue is full.
    let refused = loop {
        match engine.admit(&set, &[choice(1)], None, 0, None) {
            Ok(_) => holds.push(holds.len() as u64 + 1),
            Err(why) => break why,
        }
        assert!(holds.len() < 1_000_000, "the queue is bounded");
    };
    assert!(
        matches!(refused, EngineError::Unavailable(Unavailable::Full(_))),
        "{refused}"
    );
    let held = engine.spend().expect("sound").held;
    assert_eq!(held, holds.len() as i64, "what was refused is not held");
    for hold in &holds {
        let settled = engine.settle(*hold, &[billed(1)], None);
        settled.expect("settlements always fit");
    }
    // Once: a census looks at every hold, and on a fast disk there are hundreds of thousands.
    let waited = engine.stats().expect("sound").backlog;
    engine.close().expect("a sound disk");
    let (again, found) = open(root.path(), &clock());
    assert_eq!(
        found.charged, 0,
        "every settlement reached the disk; {waited} had waited"
    );
    let status = again
        .counters(Some(ScopeKind::User), Some("u"))
        .expect("sound");
    assert_eq!(status[0].balance.posted, holds.len() as i64);
}

#[test]
fn after_the_end_nothing_is_taken() {
    let root = tempfile::tempdir().expect("room");
    let (engine, _) = open(root.path(), &clock());
    let set = limits(&engine, "u");
    let hold = admit(&engine, &set, 1).expect("room");
    let last_seq = engine.stats().expect("sound").last_seq;
    engine.close().expect("a sound disk");
    engine.close().expect("again");
    assert!(engine.durable_seq() >= last_seq);
    assert!(engine.event_fd().is_none());
    let closed = |error: EngineError| error.to_string().contains("closed");
    assert!(engine
        .admit(&set, &[choice(1)], None, 0, None)
        .is_err_and(closed));
    assert!(engine.settle(hold, &[], None).is_err_and(closed));
    assert!(engine.fault().is_some_and(|why| why.contains("closed")));
    assert!(engine.backup(root.path()).is_none());
}

#[test]
fn what_a_panic_left_is_not_built_on() {
    let engine = Engine::in_memory(&config(), Box::new(SystemClock));
    let set = limits(&engine, "u");
    let shared = Arc::clone(&engine.shared);
    let panicked = std::thread::spawn(move || {
        let _state = shared.lock();
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    let refused = engine.admit(&set, &[choice(1)], None, 0, None);
    assert!(matches!(
        refused,
        Err(EngineError::Unavailable(Unavailable::Faulted(_)))
    ));
    assert!(engine.fault().is_some_and(|why| why.contains("panicked")));
    assert!(engine.checkpoint().is_err());
}

#[test]
fn a_folder_has_one_owner() {
    let root = tempfile::tempdir().expect("room");
    let (_engine, _) = open(root.path(), &clock());
    let again = Engine::open(root.path(), &config(), Box::new(SystemClock));
    let Err(error) = again else {
        panic!("opened twice")
    };
    assert_eq!(error.kind(), "locked");
    assert!(matches!(error, OpenError::Journal(_)));
}

#[test]
fn bad_limits_are_told_before_anything_happens() {
    let engine = Engine::in_memory(&config(), Box::new(clock()));
    let mars = CounterSpec {
        key: CounterKey {
            zone: "Mars/Olympus".into(),
            ..counter("u", WindowKind::Day, 1).key
        },
        ..counter("u", WindowKind::Day, 1)
    };
    let unknown = EngineError::Ledger(LedgerError::UnknownZone("Mars/Olympus".into()));
    let compiled = engine.compile(vec![mars.clone()], vec![]);
    assert_eq!(compiled.err(), Some(unknown.clone()));
    assert_eq!(engine.set_limits(&[mars], &[], false).err(), Some(unknown));
    let twice = vec![rate("u"), rate("u")];
    let compiled = engine.compile(vec![], twice);
    assert_eq!(
        compiled.err(),
        Some(EngineError::Ledger(LedgerError::SameRate(1)))
    );
    assert_eq!(engine.stats().expect("sound").census.counters, 0);
}

#[test]
fn the_machines_clocks_run() {
    let (first, second) = (SystemClock.now(), SystemClock.now());
    assert!(first.wall_ns > START / 2);
    assert!(second.mono_ns >= first.mono_ns && second.boot_ns >= first.boot_ns);
}

#[test]
fn the_keeper_keeps_by_itself() {
    let root = tempfile::tempdir().expect("room");
    let quick = Config {
        checkpoint_every: Duration::from_millis(2),
        ..config()
    };
    let opened = Engine::open(root.path(), &quick, Box::new(clock()));
    let (engine, _) = opened.expect("a sound folder");
    let set = limits(&engine, "u");
    admit(&engine, &set, 1).expect("room");
    let deadline = std::time::Instant::now() + WAIT;
    while engine.stats().expect("sound").keeper.checkpoints == 0 {
        assert!(std::time::Instant::now() < deadline, "no checkpoint came");
        std::thread::sleep(Duration::from_millis(1));
    }
    let stats = engine.stats().expect("sound").keeper;
    assert!(stats.entries >= 4 && stats.error.is_none(), "{stats:?}");
}

#[test]
fn a_backup_opens_by_itself_once_its_gap_is_charged() {
    let root = tempfile::tempdir().unwrap();
    let (state, copy, killed) = (
        root.path().join("state"),
        root.path().join("copy"),
        root.path().join("killed"),
    );
    let clock = clock();
    let strict = Config {
        gate: Gate::Strict,
        ..config()
    };
    let open = |dir: &Path| Engine::open(dir, &strict, Box::new(Arc::clone(&clock)));
    let (engine, found) = open(&state).unwrap();
    assert_eq!(found.gap, None);
    let set = limits(&engine, "u");
    let hold = admit(&engine, &set, 100).unwrap();
    settle_down(&engine);
    let upto_seq = engine.backup(&copy).unwrap().unwrap().upto_seq;
    drop(engine);
    assert_eq!(open(&copy).map(|_| ()).unwrap_err().kind(), "gap");
    let mut asked = strict.clone();
    asked.journal.accept_gap = true;
    let reopen = |dir: &Path| Engine::open(dir, &asked, Box::new(Arc::clone(&clock))).unwrap();
    let (engine, found) = reopen(&copy);
    assert_eq!(found.gap.map(|gap| gap.upto_seq), Some(upto_seq));
    let label = Label::new("gap", "u", "").unwrap();
    let day = counter("u", WindowKind::Day, 1_000);
    let gap = engine.charge_gap(upto_seq, &[day], 900, &label).unwrap();
    assert_eq!(gap, Some(hold + 1));
    settle_down(&engine);
    crash(&copy, &killed);
    drop(reopen(&killed));
    engine.gap_charged().unwrap();
    drop(engine);
    let (engine, _) = open(&copy).unwrap();
    let unknown: Vec<_> = engine.unresolved().unwrap();
    let told: Vec<_> = unknown.iter().map(|one| (one.hold, one.unknown)).collect();
    assert_eq!(told, [(hold, 100), (hold + 1, 900)]);
    assert_eq!(admit(&engine, &limits(&engine, "u"), 1), None, "it is full");
    assert_eq!(
        engine.adjust(hold + 1, 0, &[]).unwrap().receipt.returned,
        900
    );
    assert!(admit(&engine, &limits(&engine, "u"), 1).is_some());
    let memory = Engine::in_memory(&config(), Box::new(Arc::clone(&clock)));
    assert!(memory.gap_charged().is_ok());
}
