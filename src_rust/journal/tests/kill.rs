//! A real writer process, killed with `kill -9` at random moments, on real files.
//!
//! Several threads of the child append numbered records and say on a pipe what they are about to
//! append (`?`) and what was acknowledged (`!`). `JOURNAL_KILLS` sets how often it is killed.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use cascaded_journal::{Changes, Class, Journal, Table};
use common::{again, append, given_dir, open, replay, PATIENCE};

const KILLS: u64 = 25;
const WRITERS: u32 = 4;
/// The child is killed within so many milliseconds of its start; it opens the state in a few.
const LIFE_MS_MAX: u64 = 80;
const PAYLOAD_HEAD: usize = 12;

/// How many records of each writer there are.
type State = BTreeMap<u32, u64>;

/// A payload that tells its writer, its number, and whether it is whole.
fn payload(writer: u32, number: u64) -> Vec<u8> {
    let length = PAYLOAD_HEAD + (number * 37 % 1500) as usize;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&writer.to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend((PAYLOAD_HEAD..length).map(|i| (i as u64 * number) as u8));
    bytes
}

fn parse(bytes: &[u8]) -> (u32, u64) {
    let writer = u32::from_be_bytes(bytes[..4].try_into().unwrap());
    let number = u64::from_be_bytes(bytes[4..PAYLOAD_HEAD].try_into().unwrap());
    assert_eq!(
        bytes,
        payload(writer, number),
        "a record that was never written"
    );
    (writer, number)
}

/// Opens the folder and rebuilds the state: every writer's records in order, none twice.
fn recover(dir: &Path) -> (Journal, State) {
    let (journal, mut recovery) = open(dir);
    let mut state = State::new();
    for entry in recovery.snapshot(Table::Counters) {
        let (key, value) = entry.unwrap();
        let count = u64::from_be_bytes(value.try_into().unwrap());
        state.insert(u32::from_be_bytes(key.try_into().unwrap()), count);
    }
    for record in replay(&mut recovery) {
        let (writer, number) = parse(&record.payload);
        let count = state.entry(writer).or_default();
        assert_eq!(
            number,
            *count + 1,
            "record {} of writer {writer}",
            record.seq
        );
        *count = number;
    }
    (journal, state)
}

fn say(mark: char, writer: u32, number: u64) {
    let line = format!("{mark} {writer} {number}\n");
    // The parent may be gone; then nobody listens.
    let _ = std::io::stdout().write_all(line.as_bytes());
}

/// Records that are not in the checkpoint yet, by sequence.
type Pending = Mutex<BTreeMap<u64, (u32, u64)>>;

fn write_for_ever(journal: &Journal, pending: &Pending, writer: u32, mut number: u64) {
    loop {
        number += 1;
        say('?', writer, number);
        let seq = {
            let mut pending = pending.lock().unwrap();
            let seq = append(journal, Class::Hold, &payload(writer, number)).unwrap();
            pending.insert(seq, (writer, number));
            seq
        };
        journal.wait_durable(seq, PATIENCE).unwrap();
        say('!', writer, number);
    }
}

fn checkpoint_for_ever(journal: &Journal, pending: &Pending) {
    loop {
        std::thread::sleep(Duration::from_millis(3));
        let upto = journal.durable_seq();
        let mut pending = pending.lock().unwrap();
        let rest = pending.split_off(&(upto + 1));
        let done = std::mem::replace(&mut *pending, rest);
        drop(pending);
        checkpoint(journal, upto, &done.into_values().collect());
    }
}

fn checkpoint(journal: &Journal, upto: u64, counts: &State) {
    let owned: Vec<_> = counts
        .iter()
        .map(|(w, n)| (w.to_be_bytes(), n.to_be_bytes()))
        .collect();
    let puts = owned
        .iter()
        .map(|(w, n)| (Table::Counters, &w[..], &n[..]))
        .collect();
    journal
        .checkpoint(
            upto,
            &Changes {
                puts,
                deletes: vec![],
            },
        )
        .unwrap();
}

#[test]
fn child_writes_until_it_is_killed() {
    let Some(dir) = given_dir() else { return };
    // The test harness has begun a line of its own.
    println!();
    let (journal, state) = recover(&dir);
    // What was replayed belongs in the first checkpoint, whoever writes next.
    checkpoint(&journal, journal.durable_seq(), &state);
    let pending = Pending::default();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let number = state.get(&writer).copied().unwrap_or(0);
            let (journal, pending) = (&journal, &pending);
            scope.spawn(move || write_for_ever(journal, pending, writer, number));
        }
        checkpoint_for_ever(&journal, &pending);
    });
}

/// The highest number said with a mark, per writer. The last line may be cut short.
fn said(text: &str, mark: char) -> State {
    let mut state = State::new();
    let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    for line in whole.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [m, writer, number] = fields[..] {
            if m.chars().eq([mark]) {
                state.insert(writer.parse().unwrap(), number.parse().unwrap());
            }
        }
    }
    state
}

fn kill_once(dir: &Path, life: Duration) -> String {
    let mut child = again("child_writes_until_it_is_killed", dir, &[]);
    let mut pipe = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    });
    std::thread::sleep(life);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    let text = reader.join().unwrap();
    assert!(status.code().is_none(), "the child ended by itself: {text}");
    text
}

#[test]
fn kill_nine_loses_nothing_that_was_acknowledged() {
    let kills = std::env::var("JOURNAL_KILLS").map_or(KILLS, |n| n.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = State::new();
    let mut asked = HashMap::new();
    for kill in 0..kills {
        // Spread over the span by a step that shares no factor with it.
        let life = Duration::from_millis(kill * 37 % LIFE_MS_MAX);
        let text = kill_once(dir.path(), life);
        acknowledged.extend(said(&text, '!'));
        asked.extend(said(&text, '?'));
        let (journal, state) = recover(dir.path());
        for (writer, number) in &acknowledged {
            let lost = "lost at kill";
            assert!(
                state[writer] >= *number,
                "{lost} {kill}: {acknowledged:?} and {state:?}"
            );
        }
        for (writer, number) in &state {
            let more = "more than was asked at kill";
            assert!(
                asked[writer] >= *number,
                "{more} {kill}: {asked:?} and {state:?}"
            );
        }
        drop(journal);
    }
    let total: u64 = acknowledged.values().sum();
    println!("{kills} kills, {total} records acknowledged, none lost");
    assert!(total > kills, "the child hardly got to write: {total}");
}
