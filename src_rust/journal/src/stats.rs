//! What the journal measures about itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::error::Fault;
use crate::Seq;

/// Buckets of [`FlushTimes`]: bucket `i` counts flushes of less than `2^(i+10)` ns, so from 1 µs
/// to about 137 s; the last one takes the rest.
pub const FLUSH_BUCKETS: usize = 28;

const FIRST_BUCKET_BITS: u32 = 10;

/// Flush times so far, in fixed powers of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushTimes {
    /// Flushes per bucket, not cumulative.
    pub buckets: [u64; FLUSH_BUCKETS],
    /// Flushes in all.
    pub count: u64,
    /// Nanoseconds in all.
    pub sum_ns: u64,
}

impl FlushTimes {
    /// The upper bound of a bucket in nanoseconds; `None` for the last, which has none.
    pub fn bound_ns(bucket: usize) -> Option<u64> {
        (bucket + 1 < FLUSH_BUCKETS).then(|| 1 << (bucket as u32 + FIRST_BUCKET_BITS))
    }

    /// An upper bound of the `q`-quantile in nanoseconds (`q` in per mille, 500 is the median).
    ///
    /// `None` before the first flush, or when it falls in the last, unbounded bucket.
    pub fn quantile_ns(&self, per_mille: u64) -> Option<u64> {
        let rank = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|n| {
            seen += n;
            seen >= rank
        })?;
        Self::bound_ns(bucket)
    }
}

/// Figures of a journal at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The highest durable sequence.
    pub durable_seq: Seq,
    /// The highest sequence given out.
    pub appended_seq: Seq,
    /// Bytes that wait for the writer.
    pub queued_bytes: usize,
    /// Batches flushed.
    pub batches: u64,
    /// Records flushed.
    pub records: u64,
    /// Bytes flushed, frames included.
    pub bytes: u64,
    /// Flush times.
    pub flush: FlushTimes,
    /// Segments that hold records not yet retired, the active one included.
    pub segments: usize,
    /// Prepared segments that wait for use; the last one is kept for settlements.
    pub spares: usize,
    /// No room for another spare: holds are refused once the active segment is full.
    pub disk_full: bool,
    /// Bytes free on the file system; `None` when it does not say.
    pub free_bytes: Option<u64>,
    /// Appends refused because the disk was full.
    pub refused_full: u64,
    /// Appends refused because the queue was full or the next segment was not ready.
    pub refused_busy: u64,
    /// The failure that ended the journal, if one did.
    pub fault: Option<Fault>,
}

/// The counters behind [`Stats`] that the writer bumps without a lock.
#[derive(Default)]
pub(crate) struct Meters {
    buckets: [AtomicU64; FLUSH_BUCKETS],
    sum_ns: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Meters {
    /// Counts one flush.
    pub(crate) fn flushed(&self, took: Duration, records: u64, bytes: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(ns)].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
        self.batches.fetch_add(1, Relaxed);
        self.records.fetch_add(records, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// The flush times so far.
    pub(crate) fn flush_times(&self) -> FlushTimes {
        let buckets = std::array::from_fn(|i| self.buckets[i].load(Relaxed));
        FlushTimes {
            buckets,
            count: buckets.iter().sum(),
            sum_ns: self.sum_ns.load(Relaxed),
        }
    }
}

/// The bucket of a time: its highest bit, counted from 1 µs.
fn bucket_of(ns: u64) -> usize {
    let bits = u64::BITS - ns.leading_zeros();
    (bits.saturating_sub(FIRST_BUCKET_BITS) as usize).min(FLUSH_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_falls_under_its_bound_and_not_under_the_one_before() {
        for ns in [0, 1, 1023, 1024, 1025, 99_999, 1 << 30, 1 << 36, u64::MAX] {
            let bucket = bucket_of(ns);
            assert!(
                FlushTimes::bound_ns(bucket).is_none_or(|bound| ns < bound),
                "{ns}"
            );
            assert!(
                bucket == 0 || FlushTimes::bound_ns(bucket - 1).unwrap() <= ns,
                "{ns}"
            );
        }
    }

    #[test]
    fn quantiles_are_upper_bounds() {
        let meters = Meters::default();
        assert_eq!(meters.flush_times().quantile_ns(500), None);
        for ns in [500, 500, 3_000, 100_000] {
            meters.flushed(Duration::from_nanos(ns), 2, 64);
        }
        let times = meters.flush_times();
        assert_eq!((times.count, times.sum_ns), (4, 104_000));
        assert_eq!(times.quantile_ns(500), Some(1024));
        assert_eq!(times.quantile_ns(750), Some(4096));
        assert_eq!(times.quantile_ns(1000), Some(131_072));
        meters.flushed(Duration::from_secs(1000), 1, 1);
        assert_eq!(meters.flush_times().quantile_ns(1000), None);
    }
}
