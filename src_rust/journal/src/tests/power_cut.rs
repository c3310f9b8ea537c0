//! Power cuts at every kind of instant, on disks rebuilt from what was flushed and a random part
//! of what was not.
//!
//! `JOURNAL_POWER_CUT_SCHEDULES` sets how many schedules are run (each rebuilds dozens of disks).

use std::collections::BTreeMap;

use super::{drain, options, TAGS};
use crate::error::OpenError;
use crate::frame::CLOSE_TAG;
use crate::log::{retire, Log};
use crate::planted::{self, Bug};
use crate::shared::Class;
use crate::sim::{Moment, Operation, Random, SimDisk};
use crate::writer::Step;
use crate::Seq;

const SCHEDULES: u64 = 450;
/// Schedules within which a planted bug must show.
const BUG_SCHEDULES: u64 = 400;
const EIO: i32 = 5;

/// What was ever appended in this line of history: sequence to type and payload.
type History = BTreeMap<Seq, (u8, Vec<u8>)>;

/// A schedule under way.
struct World {
    seed: u64,
    random: Random,
    disk: SimDisk,
    history: History,
    /// The sequence of the checkpoint, which is durable the moment it changes.
    floor: Seq,
    images: u64,
}

/// What a schedule showed: disks rebuilt, or the first broken promise.
type Verdict = Result<u64, String>;

fn run(seed: u64) -> Verdict {
    let mut random = Random::new(seed);
    let disk = SimDisk::new(random.any());
    let mut world = World {
        seed,
        random,
        disk,
        history: History::new(),
        floor: 0,
        images: 0,
    };
    for _ in 0..=world.random.below(3) {
        world.live()?;
        if world.random.one_in(2) {
            let moment = world.disk.moment();
            world.disk = SimDisk::after_power_cut(&moment, world.random.any());
        }
    }
    Ok(world.images)
}

impl World {
    /// One life of a process: recover, work, and die without a word.
    fn live(&mut self) -> Result<(), String> {
        let mut log = match Log::open(self.disk.clone(), options(), self.floor) {
            // The disk may still have failures to come: a start that met one can be tried again.
            Err(OpenError::Io { .. }) => {
                self.disk.heal();
                self.open(&self.disk.clone(), "start")?
            }
            other => other.map_err(|error| self.broken("start", &error.to_string()))?,
        };
        let last = check_replay(&mut log, self.floor, 0, &self.history)
            .map_err(|why| self.broken("start", &why))?;
        self.history.split_off(&(last + 1));
        self.check_moments()?;
        self.disk.catch(2, log.shared.durable_cell());
        if self.random.one_in(4) {
            let operation = if self.random.one_in(4) {
                Operation::Write
            } else {
                Operation::Sync
            };
            self.disk.fail(operation, self.random.below(20), 1, EIO);
        }
        for _ in 0..self.random.below(50) {
            let step = self.act(&mut log);
            self.check_moments()?;
            if step == Step::Stop {
                return self.dead(&log);
            }
        }
        Ok(())
    }

    fn act(&mut self, log: &mut Log<SimDisk>) -> Step {
        match self.random.below(10) {
            0..=4 => self.append(log),
            5..=7 => return log.writer.step(false),
            8 => return log.preparer.step(),
            _ => self.checkpoint(log),
        }
        Step::Done
    }

    fn append(&mut self, log: &Log<SimDisk>) {
        let class = if self.random.one_in(2) {
            Class::Hold
        } else {
            Class::Settle
        };
        let count = 1 + self.random.below(3);
        let records: Vec<(u8, Vec<u8>)> = (0..count).map(|_| self.record()).collect();
        let borrowed: Vec<(u8, &[u8])> = records.iter().map(|(t, p)| (*t, &p[..])).collect();
        if let Ok(last) = log.shared.append(class, &borrowed) {
            let first = last + 1 - count;
            self.history.extend((first..).zip(records));
        }
    }

    fn record(&mut self) -> (u8, Vec<u8>) {
        let tag = TAGS[self.random.below(3) as usize];
        let most = if self.random.one_in(8) { 900 } else { 120 };
        let length = self.random.below(most);
        (tag, (0..length).map(|_| self.random.any() as u8).collect())
    }

    fn checkpoint(&mut self, log: &Log<SimDisk>) {
        let durable = log.shared.durable_seq();
        self.floor += self.random.below(durable - self.floor + 1);
        retire(&log.shared, self.floor).expect("nothing is told to fail here");
    }

    /// Checks what was caught since the last call, before the checkpoint moves again.
    fn check_moments(&mut self) -> Result<(), String> {
        self.disk
            .take_moments()
            .iter()
            .try_for_each(|moment| self.check(moment))
    }

    /// A journal that failed must say so to everyone, for ever.
    fn dead(&self, log: &Log<SimDisk>) -> Result<(), String> {
        let refused = log
            .shared
            .append(Class::Settle, &[(TAGS[0], b"late")])
            .is_err();
        if log.shared.fault_seen().is_none() || !refused {
            return Err(self.broken("fault", "a failed journal still takes records"));
        }
        Ok(())
    }

    /// Lets the power go at a moment, recovers, and holds the journal to its promises.
    fn check(&mut self, moment: &Moment) -> Result<(), String> {
        self.images += 1;
        let mut disk = SimDisk::after_power_cut(moment, self.random.any());
        if self.random.one_in(3) {
            disk = self.crash_in_recovery(disk);
        }
        let acknowledged = moment.acknowledged;
        let mut log = self.open(&disk, "image")?;
        let last = check_replay(&mut log, self.floor, acknowledged, &self.history)
            .map_err(|why| self.broken("image", &why))?;
        // Again, after the same process and after another cut: the same records.
        let cut = SimDisk::after_power_cut(&disk.moment(), self.random.any());
        for again in [disk, cut] {
            let mut log = self.open(&again, "again")?;
            let found = check_replay(&mut log, self.floor, last, &self.history)
                .map_err(|why| self.broken("again", &why))?;
            if found != last {
                return Err(self.broken("again", &format!("ends at {found}, not {last}")));
            }
        }
        Ok(())
    }

    /// Cuts the power after a few operations of a recovery, or kills the process there.
    fn crash_in_recovery(&mut self, disk: SimDisk) -> SimDisk {
        disk.power_for(self.random.below(12));
        drop(Log::open(disk.clone(), options(), self.floor));
        if self.random.one_in(2) {
            return SimDisk::after_power_cut(&disk.moment(), self.random.any());
        }
        disk.heal();
        disk
    }

    fn open(&self, disk: &SimDisk, when: &str) -> Result<Log<SimDisk>, String> {
        Log::open(disk.clone(), options(), self.floor)
            .map_err(|error| self.broken(when, &error.to_string()))
    }

    fn broken(&self, when: &str, why: &str) -> String {
        format!("seed {}, {when}: {why}", self.seed)
    }
}

/// Nothing acknowledged is lost, nothing is there that was not appended, all in order.
/// Returns the last sequence.
fn check_replay(
    log: &mut Log<SimDisk>,
    floor: Seq,
    acknowledged: Seq,
    history: &History,
) -> Result<Seq, String> {
    let last = log.shared.durable_seq();
    if last < acknowledged {
        return Err(format!(
            "{acknowledged} was acknowledged and {last} is the last"
        ));
    }
    let found: Vec<_> = drain(log)
        .into_iter()
        .map(|r| (r.seq, (r.tag, r.payload)))
        .collect();
    let expected = history
        .range(floor + 1..)
        .take_while(|(seq, _)| **seq <= last);
    let expected: Vec<_> = expected
        .map(|(seq, record)| (*seq, record.clone()))
        .collect();
    if found != expected {
        return Err(format!(
            "{} records found and {} expected",
            found.len(),
            expected.len()
        ));
    }
    if last > floor && history.range(..=last).next_back().map(|(seq, _)| *seq) != Some(last) {
        return Err(format!("{last} was never appended"));
    }
    Ok(last)
}

fn schedules() -> u64 {
    let asked = std::env::var("JOURNAL_POWER_CUT_SCHEDULES").ok();
    asked.map_or(SCHEDULES, |n| n.parse().expect("a number of schedules"))
}

#[test]
fn no_power_cut_loses_invents_or_reorders_a_record() {
    let mut images = 0;
    for seed in 0..schedules() {
        images += run(seed).unwrap_or_else(|why| panic!("{why}"));
    }
    println!("{images} disks rebuilt in {} schedules", schedules());
    assert!(images > 10 * schedules());
}

/// The first broken promise with a bug planted.
fn caught(bug: Bug) -> Option<String> {
    planted::with(bug, || (0..BUG_SCHEDULES).find_map(|seed| run(seed).err()))
}

#[test]
fn planted_bugs_are_caught() {
    let bugs = [
        Bug::AcknowledgeBeforeFlush,
        Bug::RetryFailedFlush,
        Bug::SkipFolderFlush,
        Bug::TrustTheTail,
    ];
    for bug in bugs {
        let why = caught(bug).unwrap_or_else(|| panic!("{bug:?} was not caught"));
        println!("{bug:?}: {why}");
    }
}

#[test]
fn a_clean_end_is_marked_and_takes_a_sequence_of_its_own() {
    let disk = SimDisk::new(1);
    let mut log = Log::open(disk.clone(), options(), 0).unwrap();
    log.preparer.step();
    log.shared
        .append(Class::Settle, &[(1, b"a"), (2, b"b")])
        .unwrap();
    log.shared.begin_close();
    assert_eq!(log.writer.step(false), Step::Done);
    assert_eq!(log.writer.step(false), Step::Stop);
    let mut log = Log::open(disk, options(), 0).unwrap();
    assert_eq!(super::seqs(&drain(&mut log)), [1, 2]);
    assert_eq!(log.shared.durable_seq(), 3);
    assert_eq!(CLOSE_TAG, 0);
}
