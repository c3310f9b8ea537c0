//! Windows of real counters, with an injected clock.

use super::*;
use crate::window::{Now, Reading, TrustedTime, WindowKind, DAY_NS, HOUR_NS, MINUTE_NS};

const fn utc(seconds: i64) -> Stamp {
    Stamp {
        calendar_ns: seconds * SECOND_NS,
        elapsed_ns: seconds * SECOND_NS,
    }
}

fn zoned(window: WindowKind, zone: &str) -> CounterSpec {
    CounterSpec {
        key: key(ScopeKind::User, "u", window, zone),
        ..counter("u", window, 100)
    }
}

/// Uses up a counter just before an instant, and asks around it.
fn resets_at(spec: &CounterSpec, before: Stamp, instant: Stamp) {
    let mut bench = Bench {
        at: before,
        ..Bench::new()
    };
    bench.admit(100, &[spec]);
    bench.settle(1, Outcome::Billed(100));
    let refusal = bench.refused(1, &[spec]);
    assert_eq!(refusal.reset_at_ns, Some(instant.calendar_ns), "{spec:?}");
    bench.at = Stamp::at(instant.calendar_ns - 1);
    bench.refused(1, &[spec]);
    bench.at = instant;
    assert_eq!(bench.admit(100, &[spec]).hold, 2);
    let totals = bench.ledger.take_window_totals();
    assert_eq!(totals.len(), 1);
    assert_eq!(
        (totals[0].balance.posted, totals[0].bounds.end_ns),
        (100, instant.calendar_ns)
    );
    bench.check_replay();
}

#[test]
fn budgets_reset_when_their_zone_says() {
    // 24 April 2026 in Cairo begins at 01:00 and has 23 hours.
    resets_at(
        &zoned(WindowKind::Day, "Africa/Cairo"),
        utc(1_776_981_600),
        utc(1_777_064_400),
    );
    // 24 October 2026 in Beirut has 25 hours; both 23:30 are in it.
    resets_at(
        &zoned(WindowKind::Day, "Asia/Beirut"),
        utc(1_792_873_800),
        utc(1_792_879_200),
    );
    // 1 November 2026 in Havana: midnight comes twice, the earlier one counts.
    resets_at(
        &zoned(WindowKind::Day, "America/Havana"),
        utc(1_793_500_000),
        utc(1_793_505_600),
    );
    // 6 September 2026 in Santiago: midnight is skipped.
    resets_at(
        &zoned(WindowKind::Day, "America/Santiago"),
        utc(1_788_660_000),
        utc(1_788_667_200),
    );
    // 28 March 2027 in the Azores: midnight is skipped.
    resets_at(
        &zoned(WindowKind::Day, "Atlantic/Azores"),
        utc(1_806_190_000),
        utc(1_806_195_600),
    );
    // A month's end, a year's end, a week's end over the new year, a leap day.
    resets_at(
        &zoned(WindowKind::Month, "UTC"),
        utc(1_772_323_199),
        utc(1_772_323_200),
    );
    resets_at(
        &zoned(WindowKind::Month, "UTC"),
        utc(1_798_761_599),
        utc(1_798_761_600),
    );
    resets_at(
        &zoned(WindowKind::Day, "UTC"),
        utc(1_798_761_599),
        utc(1_798_761_600),
    );
    resets_at(
        &zoned(WindowKind::Week, "UTC"),
        utc(1_798_675_200),
        utc(1_799_020_800),
    );
    resets_at(
        &zoned(WindowKind::Day, "UTC"),
        utc(1_835_395_200),
        utc(1_835_481_600),
    );
    resets_at(
        &zoned(WindowKind::Month, "UTC"),
        utc(1_835_395_200),
        utc(1_835_481_600),
    );
}

#[test]
fn holds_settle_into_the_window_they_were_made_in() {
    let mut bench = Bench::new();
    let day = zoned(WindowKind::Day, "UTC");
    let hold = bench.admit(90, &[&day]).hold;
    let lost = bench.admit(10, &[&day]).hold;
    bench.pass(DAY_NS);
    bench.admit(100, &[&day]);
    assert_eq!(
        bench.balance(&day),
        Balance {
            held: 100,
            ..Balance::default()
        }
    );
    bench.ledger.take_window_totals();
    bench.settle(hold, Outcome::Billed(80));
    bench
        .ledger
        .mark_unknown(bench.at, lost, &mut bench.journal)
        .unwrap();
    bench.pass(3 * DAY_NS);
    bench
        .ledger
        .adjust(bench.at, lost, None, 4, &mut bench.journal)
        .unwrap();
    assert_eq!(
        bench.balance(&day),
        Balance::default(),
        "its window is over, and it is empty"
    );
    let totals = bench.ledger.take_window_totals();
    let told: Vec<_> = totals
        .iter()
        .map(|total| (total.bounds.start_ns, total.balance))
        .collect();
    let start_ns = START - 12 * HOUR_NS;
    assert!(told.iter().all(|(start, _)| *start == start_ns));
    let last = Balance {
        posted: 84,
        ..Balance::default()
    };
    assert_eq!(
        told.last(),
        Some(&(start_ns, last)),
        "the latest word is the whole truth"
    );
    bench.check_replay();
}

#[test]
fn a_clock_that_steps_back_opens_nothing_again() {
    let mut bench = Bench::new();
    let day = zoned(WindowKind::Day, "UTC");
    bench.admit(100, &[&day]);
    bench.pass(DAY_NS);
    bench.admit(60, &[&day]);
    // Yesterday again, by the wall clock.
    bench.pass(-DAY_NS);
    assert_eq!(bench.refused(41, &[&day]).used, 60);
    bench.admit(40, &[&day]);
    assert_eq!(bench.refused(1, &[&day]).used, 100);
    bench.check_replay();
    // Nor after it was forgotten.
    for hold in 1..=3 {
        bench.settle(hold, Outcome::Billed(1));
    }
    bench.pass(3 * DAY_NS);
    bench
        .ledger
        .sweep(bench.at, SweepPlace::default(), 10, &mut bench.journal)
        .unwrap();
    assert_eq!(bench.ledger.census().counters, 0);
    bench.pass(-3 * DAY_NS);
    bench.admit(100, &[&day]);
    let handle = bench.ledger.find_counter(&day.key).unwrap();
    let bounds = bench
        .ledger
        .counter_status(bench.at, handle)
        .unwrap()
        .bounds;
    assert!(
        bounds.start_ns > bench.at.calendar_ns,
        "the window of the latest known moment"
    );
    bench.check_replay();
}

#[test]
fn a_clock_that_leaps_rolls_nothing_until_confirmed() {
    let mut bench = Bench::new();
    let day = zoned(WindowKind::Day, "UTC");
    let clocks = |wall_ns, passed_ns| Now {
        wall_ns,
        mono_ns: passed_ns,
        boot_ns: passed_ns,
    };
    let mut time = TrustedTime::resume(bench.ledger.high_water(), clocks(START, 0));
    bench.at = time.stamp();
    bench.admit(100, &[&day]);
    let leapt = clocks(START + 2 * DAY_NS, MINUTE_NS);
    let reading = time.observe(leapt);
    assert!(matches!(reading, Reading::LeapRefused(..)));
    bench.at = reading.stamp();
    bench.refused(1, &[&day]);
    bench.at = time.confirm(leapt);
    bench.admit(100, &[&day]);
    // Back to the truth: time stands still and the new day stays used up.
    let reading = time.observe(clocks(START + 2 * MINUTE_NS, 2 * MINUTE_NS));
    assert!(matches!(reading, Reading::HeldStill(..)));
    bench.at = reading.stamp();
    bench.refused(1, &[&day]);
}

#[test]
fn rates_go_on_while_the_calendar_stands_still() {
    let mut bench = Bench::new();
    let requests = rate("u", Unit::Requests, 1, MINUTE_NS);
    let clocks = |wall_ns, passed_ns| Now {
        wall_ns,
        mono_ns: passed_ns,
        boot_ns: passed_ns,
    };
    let mut time = TrustedTime::resume(Stamp::default(), clocks(START, 0));
    bench.at = time.stamp();
    bench.ask(&[choice(0)], &[], &[&requests]).unwrap();
    bench.at = time
        .observe(clocks(START - HOUR_NS, MINUTE_NS + 100))
        .stamp();
    assert_eq!(bench.at.calendar_ns, START);
    let answer = bench.ask(&[choice(0)], &[], &[&requests]).unwrap();
    assert!(
        matches!(answer, Admission::Admitted(_)),
        "a minute passed whatever the wall says"
    );
}

#[test]
fn rolling_windows_let_go_by_slots() {
    let mut bench = Bench::new();
    let day = zoned(WindowKind::RollingDay, "UTC");
    let slot = WindowKind::RollingDay.slot_ns().unwrap();
    for _ in 0..4 {
        let hold = bench.admit(25, &[&day]).hold;
        bench.settle(hold, Outcome::Billed(25));
        bench.pass(HOUR_NS);
    }
    let refusal = bench.refused(26, &[&day]);
    // The second slot's last nanosecond, 24 hours later; START is on a slot's edge.
    let expires = START + HOUR_NS + slot - 1 + DAY_NS;
    assert_eq!(refusal.reset_at_ns, Some(expires));
    let long = counter("v", WindowKind::RollingMonth, 10);
    assert_eq!(
        bench.refused(11, &[&long]).retry_after_ns,
        None,
        "it will never fit"
    );
    bench.at = Stamp::at(expires - 1);
    bench.refused(26, &[&day]);
    bench.at = Stamp::at(expires);
    let hold = bench.admit(50, &[&day]).hold;
    bench.check_replay();
    // A hold outlives its slot: it stays held, and its cost is no longer in the window.
    bench.pass(3 * DAY_NS);
    assert_eq!(
        bench.balance(&day),
        Balance {
            held: 50,
            ..Balance::default()
        }
    );
    bench.settle(hold, Outcome::Billed(50));
    assert_eq!(bench.balance(&day), Balance::default());
    bench
        .ledger
        .sweep(bench.at, SweepPlace::default(), 10, &mut bench.journal)
        .unwrap();
    assert_eq!(bench.ledger.census().counters, 0);
    bench.check_replay();
}

#[test]
fn sweeping_goes_round_and_rolls_what_stays() {
    let mut bench = Bench::new();
    let api = Policy {
        origin: Origin::Api,
        ..counter("", WindowKind::Day, 50).policy
    };
    let specs: Vec<CounterSpec> = (0..5)
        .map(|n| CounterSpec {
            policy: api,
            ..counter(&n.to_string(), WindowKind::Day, 1)
        })
        .collect();
    bench.admit(1, &specs.iter().collect::<Vec<_>>());
    bench.settle(1, Outcome::Billed(1));
    bench.pass(DAY_NS);
    let mut place = SweepPlace::default();
    let mut rounds = 0;
    loop {
        place = bench
            .ledger
            .sweep(bench.at, place, 2, &mut bench.journal)
            .unwrap();
        rounds += 1;
        if place == SweepPlace::default() {
            break;
        }
    }
    assert_eq!(
        (rounds, bench.ledger.census().counters),
        (3, 5),
        "an administrator set them"
    );
    assert_eq!(bench.ledger.take_window_totals().len(), 5);
    assert_eq!(bench.balance(&specs[4]), Balance::default());
    let length = bench.journal.len();
    bench
        .ledger
        .sweep(bench.at, place, 9, &mut bench.journal)
        .unwrap();
    assert_eq!(
        bench.journal.len(),
        length,
        "nothing to do leaves no record"
    );
    bench.check_replay();
}
