//! `replay(journal) == state`, wherever a life is cut off.

use cascaded_core::ledger::SweepPlace;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Admit(usize, i64),
    Settle(usize, i64, i64),
    Release(usize),
    Adjust(usize, i64),
    Limit(usize, i64),
    Pass(i64),
    Checkpoint,
    /// The process dies and is started again.
    Crash,
    /// It ends in order and is started again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_usize, 0..400_i64).prop_map(|(user, amount)| Step::Admit(user, amount)),
        4 => (0..9_usize, 0..300_i64, 0..100_i64).prop_map(|(n, p, x)| Step::Settle(n, p, x)),
        2 => (0..9_usize).prop_map(Step::Release),
        2 => (0..9_usize, 0..300_i64).prop_map(|(n, amount)| Step::Adjust(n, amount)),
        1 => (0..3_usize, 500..1_500_i64).prop_map(|(user, limit)| Step::Limit(user, limit)),
        2 => (1..40_000_i64).prop_map(Step::Pass),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
    ]
}

const USERS: [&str; 3] = ["a", "b", "c"];

struct Life {
    root: tempfile::TempDir,
    clock: Arc<ManualClock>,
    engine: Option<Engine>,
    sets: Vec<LimitSet>,
    holds: Vec<u64>,
    incarnation: u64,
}

impl Life {
    fn new() -> Self {
        let mut life = Self {
            root: tempfile::tempdir().expect("room"),
            clock: clock(),
            engine: None,
            sets: Vec::new(),
            holds: Vec::new(),
            incarnation: 0,
        };
        life.start();
        life
    }

    fn dir(&self, incarnation: u64) -> std::path::PathBuf {
        self.root.path().join(incarnation.to_string())
    }

    fn start(&mut self) {
        let (engine, _) = open(&self.dir(self.incarnation), &self.clock);
        self.sets = USERS.map(|id| limits(&engine, id)).into();
        self.engine = Some(engine);
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("started")
    }

    fn step(&mut self, step: &Step) {
        let hold = |n: usize| self.holds.get(n % self.holds.len().max(1)).copied();
        // A hold that is resolved already says so, and nothing happens.
        match *step {
            Step::Admit(user, amount) => {
                let hold = admit(self.engine(), &self.sets[user], amount);
                self.holds.extend(hold);
            }
            Step::Settle(n, posted, unknown) => {
                let unknown = AttemptResult {
                    attempt: None,
                    outcome: Outcome::Unknown(unknown),
                };
                let results = [billed(posted), unknown];
                hold(n).map(|hold| self.engine().settle(hold, &results, Some(3)));
            }
            Step::Release(n) => {
                hold(n).map(|hold| self.engine().release(hold));
            }
            Step::Adjust(n, posted) => {
                hold(n).map(|hold| self.engine().adjust(hold, posted, &[]));
            }
            Step::Limit(user, limit) => {
                let spec = counter(USERS[user], WindowKind::Day, limit);
                let set = self.engine().set_limits(&[spec], &[], false);
                set.expect("a good limit");
            }
            Step::Pass(seconds) => self.clock.advance(seconds * SECOND_NS),
            Step::Checkpoint => self.engine().checkpoint().expect("a sound disk"),
            Step::Crash => self.die(false),
            Step::Restart => self.die(true),
        }
    }

    /// Ends, and starts again from what is on the disk.
    fn die(&mut self, in_order: bool) {
        settle_down(self.engine());
        let (old, new) = (self.dir(self.incarnation), self.dir(self.incarnation + 1));
        if in_order {
            self.engine().close().expect("a sound disk");
        }
        crash(&old, &new);
        self.incarnation += 1;
        let before = self.engine.take().expect("started");
        // What the one that lived on makes of it, without any disk.
        charge_open(&before);
        let expected = snapshot(&before);
        drop(before);
        self.start();
        assert_eq!(
            snapshot(self.engine()),
            expected,
            "replay(journal) == state"
        );
        let spend = self.engine().spend().expect("a sound ledger");
        let unknown: i64 = unknowns(self.engine());
        assert_eq!((spend.posted, spend.held, spend.unknown), (0, 0, unknown));
    }
}

/// What a start does: open holds are charged and what is idle is forgotten. Done to a ledger that
/// never stopped.
fn charge_open(engine: &Engine) {
    use crate::outbox::{Outbox, Sink};
    let mut state = engine.shared.lock().expect("no panic");
    let at = state.look(&*engine.shared.clock);
    let outbox = &mut Outbox::default();
    let mut sink = Sink {
        outbox,
        journal: None,
    };
    state.ledger.recover(at, &mut sink).expect("room");
    state.ledger.charge_lost(at, &mut sink).expect("room");
    let all = state
        .ledger
        .sweep(at, SweepPlace::default(), u32::MAX, &mut sink);
    assert_eq!(all, Ok(SweepPlace::default()));
}

fn unknowns(engine: &Engine) -> i64 {
    let holds = engine.unresolved().expect("a sound ledger");
    holds.iter().map(|hold| hold.unknown).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_life_that_is_cut_off_goes_on(steps in prop::collection::vec(step(), 1..60)) {
        let mut life = Life::new();
        for step in &steps {
            life.step(step);
        }
        life.die(false);
        life.die(false);
    }
}

#[test]
fn recovering_twice_gives_the_same() {
    let root = tempfile::tempdir().expect("room");
    let dir = |name: &str| root.path().join(name);
    let clock = clock();
    let (engine, found) = open(&dir("first"), &clock);
    assert_eq!((found.incarnation, found.records, found.charged), (1, 0, 0));
    let set = limits(&engine, "u");
    let holds: Vec<_> = (0..5).filter_map(|_| admit(&engine, &set, 100)).collect();
    engine.settle(holds[0], &[billed(40)], None).expect("held");
    settle_down(&engine);
    crash(&dir("first"), &dir("one"));
    crash(&dir("first"), &dir("two"));
    let (one, found) = open(&dir("one"), &clock);
    assert_eq!((found.records, found.charged), (7, 4), "one of ceilings");
    let (two, _) = open(&dir("two"), &clock);
    assert_eq!(snapshot(&one), snapshot(&two));
    let before = snapshot(&one);
    settle_down(&one);
    crash(&dir("one"), &dir("three"));
    let (three, found) = open(&dir("three"), &clock);
    assert_eq!(
        (found.records, found.charged),
        (0, 0),
        "the checkpoint has it"
    );
    assert_eq!(snapshot(&three), before);
}

#[test]
fn a_crash_during_recovery_starts_it_again() {
    let root = tempfile::tempdir().expect("room");
    let dir = |name: &str| root.path().join(name);
    let clock = clock();
    let (engine, _) = open(&dir("first"), &clock);
    let set = limits(&engine, "u");
    for _ in 0..5 {
        admit(&engine, &set, 100).expect("room");
    }
    // A recovery that died after it had charged two of them.
    {
        let journal = engine.shared.journal().expect("a journal");
        let mut state = engine.shared.lock().expect("no panic");
        let at = state.look(&*engine.shared.clock);
        for hold in [1, 2] {
            let marked = state.with(Some(&journal), |ledger, sink| {
                ledger.mark_unknown(at, hold, sink)
            });
            marked.expect("held");
        }
    }
    settle_down(&engine);
    crash(&dir("first"), &dir("again"));
    let (again, found) = open(&dir("again"), &clock);
    assert_eq!(found.charged, 3);
    assert_eq!(unknowns(&again), 500);
    assert_eq!(again.spend().expect("sound").unknown, 500);
}

#[test]
fn past_windows_are_kept_by_the_day() {
    let root = tempfile::tempdir().expect("room");
    let clock = clock();
    let (engine, _) = open(root.path(), &clock);
    let day = vec![counter("u", WindowKind::Day, 1_000)];
    let set = engine.compile(day.clone(), vec![]).expect("good");
    let hold = admit(&engine, &set, 100).expect("room");
    let open_hold = admit(&engine, &set, 50).expect("room");
    engine.settle(hold, &[billed(40)], None).expect("held");
    clock.advance(cascaded_core::window::DAY_NS);
    engine.checkpoint().expect("a sound disk");
    let totals = engine.day_totals().expect("a sound disk");
    assert_eq!(totals.len(), 1, "{totals:?}");
    assert_eq!(
        (&totals[0].key, totals[0].balance.posted),
        (&day[0].key, 40)
    );
    assert_eq!(
        totals[0].bounds.end_ns - totals[0].bounds.start_ns,
        cascaded_core::window::DAY_NS
    );
    engine.settle(open_hold, &[billed(5)], None).expect("held");
    engine.checkpoint().expect("a sound disk");
    let totals = engine.day_totals().expect("a sound disk");
    assert_eq!(
        (totals.len(), totals[0].balance.posted),
        (1, 45),
        "to its own day"
    );
    assert_eq!(totals[0].balance.held, 0);
}
