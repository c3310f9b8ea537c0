//! Tests of the journal on the simulated disk, below the checkpoint.

mod damage;
mod mishaps;
mod power_cut;

use std::time::Duration;

use crate::disk::Disk;
use crate::log::Log;
use crate::options::Options;
use crate::scan::Record;
use crate::Seq;

/// Record types the tests use.
const TAGS: [u8; 3] = [1, 2, 9];

/// Small segments, so that schedules of a few dozen records rotate, fill and retire them.
fn options() -> Options {
    Options {
        record_tags: TAGS.to_vec(),
        segment_bytes: 8192,
        queue_bytes_max: 4096,
        record_bytes_max: 1000,
        free_bytes_min: 0,
        space_retry: Duration::from_millis(1),
        ..Options::default()
    }
}

/// Everything a log replays.
fn drain<D: Disk>(log: &mut Log<D>) -> Vec<Record> {
    log.replay
        .by_ref()
        .collect::<Result<_, _>>()
        .expect("what was inspected can be read")
}

fn seqs(records: &[Record]) -> Vec<Seq> {
    records.iter().map(|record| record.seq).collect()
}
