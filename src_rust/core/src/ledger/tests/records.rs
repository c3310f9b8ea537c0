//! Records and checkpoints as bytes.

use proptest::prelude::*;

use super::*;
use crate::window::{WindowKind, MINUTE_NS};

/// One of each record, from real use.
fn one_of_each() -> Vec<Record> {
    let mut bench = Bench::new();
    let (day, rolling) = (
        counter("ü", WindowKind::Day, 900),
        counter("ü", WindowKind::RollingDay, 900),
    );
    let tokens = rate("ü", Unit::Tokens, 1_000, MINUTE_NS);
    let demand = Demand {
        menu: &[Choice {
            rungs: &[10, 20],
            tokens: 5,
            ..choice(30)
        }],
        counters: &[CounterRef::Spec(&day), CounterRef::Spec(&rolling)],
        rates: &[RateRef::Spec(&tokens)],
        idempotency: Some(Idempotency {
            key: [1; 16],
            body: [2; 16],
        }),
        price_hash: u64::MAX,
        label: None,
    };
    let Bench {
        ledger,
        journal,
        at,
    } = &mut bench;
    ledger.admit(*at, &demand, journal).unwrap();
    let hold = 1;
    ledger.dispatch(hold, 0, None, journal).unwrap();
    ledger
        .end_attempt(hold, 0, Outcome::Unknown(4), journal)
        .unwrap();
    ledger.shrink(*at, hold, 25, journal).unwrap();
    ledger.settle(*at, hold, &[], Some(3), journal).unwrap();
    ledger.adjust(*at, hold, None, 2, journal).unwrap();
    let window = PastWindow {
        key: day.key.clone(),
        start_ns: 0,
    };
    ledger
        .adjust_late(*at, hold, &[window], 6, journal)
        .unwrap();
    let change = [LimitChange::Set(counter("v", WindowKind::Week, 3))];
    ledger.set_limits(*at, &change, false, journal).unwrap();
    let again = Demand {
        idempotency: None,
        ..demand
    };
    ledger.admit(*at, &again, journal).unwrap();
    ledger.release(*at, 2, journal).unwrap();
    ledger.admit(*at, &again, journal).unwrap();
    ledger.recover(*at, journal).unwrap();
    let admitted = ledger.admit(*at, &again, journal);
    let Ok(Admission::Admitted(admitted)) = admitted else {
        panic!("{admitted:?}");
    };
    ledger
        .raise_ceilings(*at, &admitted.counters, 30, 1, 1, journal)
        .unwrap();
    assert!(ledger.charge_lost(*at, journal).unwrap() > 0);
    let lost = ledger.unresolved_holds().last().unwrap().hold;
    ledger.adjust(*at, lost, None, 2, journal).unwrap();
    ledger
        .settle(*at, admitted.hold, &[], None, journal)
        .unwrap();
    let label = Label::new("gap", "", "").unwrap();
    ledger
        .charge_gap(*at, 9, &[CounterRef::Spec(&day)], 40, &label, journal)
        .unwrap();
    let later = Stamp::at(START + 40 * crate::window::DAY_NS);
    ledger
        .sweep(later, SweepPlace::default(), 10, journal)
        .unwrap();
    bench.check_replay();
    bench.journal
}

fn bytes(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

#[test]
fn every_record_comes_back() {
    let records = one_of_each();
    let mut tags: Vec<u8> = records.iter().map(|record| bytes(record)[1]).collect();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags, TAGS, "one of each");
    for record in records {
        let whole = bytes(&record);
        assert_eq!(Record::decode(&whole), Ok(record.clone()));
        assert_eq!(whole[..2], [RECORD_VERSION, record.tag()]);
        assert_eq!(record.is_reservation(), record.tag() == 1);
        for cut in 0..whole.len() {
            assert!(
                Record::decode(&whole[..cut]).is_err(),
                "{record:?} cut at {cut}"
            );
        }
        let long = [whole.as_slice(), &[0]].concat();
        assert_eq!(Record::decode(&long), Err(DecodeError::Trailing));
        let newer = [&[RECORD_VERSION + 1], &whole[1..]].concat();
        assert_eq!(
            Record::decode(&newer),
            Err(DecodeError::Version(RECORD_VERSION + 1))
        );
    }
    assert_eq!(
        Record::decode(&[RECORD_VERSION, 34]),
        Err(DecodeError::ReservedTag(34))
    );
    assert_eq!(
        Record::decode(&[RECORD_VERSION, 99]),
        Err(DecodeError::UnknownTag(99))
    );
    assert!(DecodeError::ReservedTag(33)
        .to_string()
        .contains("newer release"));
}

/// As the version before labels wrote them: without the last byte, which says that there is none.
fn before_labels(bytes: &[u8]) -> Vec<u8> {
    let (last, rest) = bytes.split_last().unwrap();
    assert_eq!(*last, 0, "no label");
    [&[1], &rest[1..]].concat()
}

#[test]
fn what_version_1_wrote_is_read() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 900);
    bench.admit(3, &[&day]);
    for record in &bench.journal {
        let old = before_labels(&bytes(record));
        assert_eq!(Record::decode(&old), Ok(record.clone()));
    }
    let entries: Vec<_> = bench
        .ledger
        .snapshot()
        .into_iter()
        .map(|change| {
            let value = change.value.unwrap();
            let old = match change.key[0] {
                b'h' => before_labels(&value),
                _ => [&[1], &value[1..]].concat(),
            };
            (change.key, old)
        })
        .collect();
    let restored = Ledger::restore(Capacity::default(), entries).unwrap();
    assert_eq!(sorted(restored.snapshot()), sorted(bench.ledger.snapshot()));
    assert_eq!(Record::decode(&[0, 1]), Err(DecodeError::Version(0)));
}

#[test]
fn a_label_stays_with_its_hold_until_that_is_resolved() {
    let label = Label::new("req-ü", "", "uid:7").unwrap();
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 900);
    let demand = Demand {
        menu: &[choice(3)],
        counters: &[CounterRef::Spec(&day)],
        rates: &[],
        idempotency: None,
        price_hash: 0,
        label: Some(&label),
    };
    let Bench {
        ledger,
        journal,
        at,
    } = &mut bench;
    ledger.admit(*at, &demand, journal).unwrap();
    ledger.recover(*at, journal).unwrap();
    bench.check_replay();
    let told = |ledger: &Ledger| ledger.hold_status(1).unwrap().label.unwrap();
    let entries = bench.ledger.snapshot().into_iter();
    let entries = entries.map(|change| (change.key, change.value.unwrap()));
    let restored = Ledger::restore(Capacity::default(), entries).unwrap();
    for ledger in [&bench.ledger, &restored] {
        let label = told(ledger);
        let parts = (label.request(), label.user(), label.owner());
        assert_eq!(parts, ("req-ü", "", "uid:7"));
    }
    let whole = bytes(&bench.journal[0]);
    let at = whole.len() - "req-üuid:7".len() - 3;
    for (byte, wrong) in [(at, 5), (at, 99), (at + 1, 2), (at + 2, 0x7f)] {
        let mut damaged = whole.clone();
        damaged[byte] = wrong;
        assert!(Record::decode(&damaged).is_err(), "{byte}: {wrong}");
    }
    let long = "x".repeat(LABEL_BYTES_MAX + 1);
    assert!(Label::new("", &long, "").is_err());
    bench
        .ledger
        .adjust(bench.at, 1, None, 0, &mut bench.journal)
        .unwrap();
    assert_eq!(bench.ledger.hold_status(1), None);
}

#[test]
fn a_sink_of_bytes_takes_what_a_journal_takes() {
    let mut ledger = Ledger::new(Capacity::default());
    let day = counter("u", WindowKind::Day, 100);
    let demand = Demand {
        menu: &[choice(1)],
        counters: &[CounterRef::Spec(&day)],
        rates: &[],
        idempotency: None,
        price_hash: 0,
        label: None,
    };
    let mut sink: Vec<u8> = Vec::new();
    ledger.admit(Stamp::at(START), &demand, &mut sink).unwrap();
    assert!(matches!(Record::decode(&sink), Ok(Record::Reserve(_))));
}

/// A journal whose disk is full.
struct Full;

impl RecordSink for Full {
    fn push(&mut self, _: &Record) -> Result<(), NotTaken> {
        Err(NotTaken)
    }
}

#[test]
fn what_the_journal_does_not_take_does_not_happen() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 100);
    let hold = bench.admit(10, &[&day]).hold;
    let before = sorted(bench.ledger.snapshot());
    let demand = Demand {
        menu: &[choice(1)],
        counters: &[CounterRef::Spec(&day)],
        rates: &[],
        idempotency: None,
        price_hash: 0,
        label: None,
    };
    let Bench { ledger, at, .. } = &mut bench;
    let full = LedgerError::NotJournalled;
    assert_eq!(ledger.admit(*at, &demand, &mut Full), Err(full.clone()));
    assert_eq!(
        ledger.dispatch(hold, 0, Some(1), &mut Full),
        Err(full.clone())
    );
    assert_eq!(
        ledger.settle(*at, hold, &[], None, &mut Full),
        Err(full.clone())
    );
    assert_eq!(ledger.recover(*at, &mut Full), Err(full));
    assert_eq!(sorted(bench.ledger.snapshot()), before);
}

#[test]
fn records_of_another_ledger_do_not_fit() {
    let records = one_of_each();
    for record in &records[1..] {
        let mut empty = Ledger::new(Capacity::default());
        let applied = empty.apply(record);
        let harmless =
            matches!(record, Record::LateAdjust(_) | Record::Limits(_)) && applied.is_ok();
        let creates = matches!(record, Record::Reserve(reserve) if !reserve.opens.is_empty());
        assert!(applied.is_err() || harmless || creates, "{record:?}");
    }
    let mut twice = Ledger::new(Capacity::default());
    twice.apply(&records[0]).unwrap();
    let misfit = twice.apply(&records[0]).expect_err("its counters exist");
    assert!(misfit.to_string().contains("does not fit"));
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 900);
    let tokens = rate("u", Unit::Tokens, 1_000, MINUTE_NS);
    bench.ask(&[choice(3)], &[&day], &[&tokens]).unwrap();
    let entries: Vec<(Vec<u8>, Vec<u8>)> = bench
        .ledger
        .snapshot()
        .into_iter()
        .map(|change| (change.key, change.value.unwrap()))
        .collect();
    let restore = |entries: &[(Vec<u8>, Vec<u8>)]| {
        let entries = entries
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_slice()));
        Ledger::restore(Capacity::default(), entries)
    };
    let restored = restore(&entries).unwrap();
    assert_eq!(sorted(restored.snapshot()), sorted(bench.ledger.snapshot()));
    for index in 0..entries.len() {
        let mut cut = entries.clone();
        cut[index].1.pop();
        assert!(restore(&cut).is_err(), "{:?}", entries[index].0);
        let mut newer = entries.clone();
        newer[index].1[0] += 1;
        assert!(matches!(
            restore(&newer).map_err(|error| error.error),
            Err(DecodeError::Version(3))
        ));
        let mut odd = entries.clone();
        odd[index].0[0] = b'?';
        assert!(restore(&odd).is_err());
    }
    let orphan: Vec<_> = entries
        .iter()
        .filter(|(key, _)| key[0] != b'c')
        .cloned()
        .collect();
    let error = restore(&orphan).expect_err("a hold without its counter");
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn only_what_changed_is_checkpointed() {
    let mut bench = Bench::new();
    let specs: Vec<CounterSpec> = (0..9)
        .map(|n| counter(&n.to_string(), WindowKind::Day, 100))
        .collect();
    bench.admit(1, &specs.iter().collect::<Vec<_>>());
    assert_eq!(
        bench.ledger.take_snapshot_changes().len(),
        9 + 1 + 1,
        "counters, hold, meta"
    );
    assert_eq!(bench.ledger.take_snapshot_changes().len(), 1, "meta");
    bench.admit(1, &[&specs[3]]);
    bench.settle(2, Outcome::Billed(1));
    let changes = bench.ledger.take_snapshot_changes();
    let deleted = changes
        .iter()
        .filter(|change| change.value.is_none())
        .count();
    assert_eq!(
        (changes.len(), deleted),
        (3, 1),
        "a counter, a hold that is over, meta"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(tag in 0..40u8, noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [&[RECORD_VERSION, tag], noise.as_slice()].concat();
        if let Ok(record) = Record::decode(&bytes) {
            // Whatever it says, applying it is an answer too.
            let _ = Ledger::new(Capacity::default()).apply(&record);
        }
        let entry = [(&bytes[1..], noise.as_slice())];
        let _ = Ledger::restore(Capacity::default(), entry);
    }

    #[test]
    fn flipped_bits_never_make_it_panic(which in 0..30usize, at in 0..400usize, bit in 0..8u8) {
        let records = one_of_each();
        let record = &records[which % records.len()];
        let mut damaged = bytes(record);
        let at = at % damaged.len();
        damaged[at] ^= 1 << bit;
        let mut ledger = Ledger::new(Capacity::default());
        for earlier in records.iter().take(which % records.len()) {
            prop_assert!(ledger.apply(earlier).is_ok());
        }
        if let Ok(record) = Record::decode(&damaged) {
            let _ = ledger.apply(&record);
        }
    }
}
