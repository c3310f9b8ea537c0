//! The journal's settings, each with its bounds.

use std::time::Duration;

use crate::error::OpenError;
use crate::frame::{frame_bytes, CLOSE_TAG, PAYLOAD_BYTES_MAX, SEGMENT_HEADER};
use crate::scan::Known;

/// The smallest segment: a header and as much again for frames.
pub const SEGMENT_BYTES_MIN: u64 = 2 * SEGMENT_HEADER as u64;
/// The largest segment; one is read into memory whole at recovery.
pub const SEGMENT_BYTES_MAX: u64 = 256 << 20;
/// The most bytes that may wait for the writer.
pub const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Segments kept ready: one for settlements, one to move into.
pub(crate) const SPARES: usize = 2;

/// How to open a journal.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names this host in every segment.
    pub host: [u8; 16],
    /// The payload schema that will be written; segments of a newer one are refused.
    pub schema: u16,
    /// The record types there are, without 0, which is the journal's own. Others are refused.
    pub record_tags: Vec<u8>,
    /// Bytes of a segment. One segment is kept for settlements when the disk is full, so it must
    /// hold the settlements of all holds that can be open at once.
    pub segment_bytes: u64,
    /// Bytes that may wait for the writer before holds get `Busy`; settlements may use a quarter
    /// more. As much again may be in the batch that is being written.
    pub queue_bytes_max: usize,
    /// The longest record.
    pub record_bytes_max: usize,
    /// Bytes of the file system that are left free for the checkpoint.
    pub free_bytes_min: u64,
    /// How long to wait before looking again for room on a full disk.
    pub space_retry: Duration,
    /// How long records that nobody waits for may gather before they are written; zero writes at
    /// once. [`Journal::hurry`](crate::Journal::hurry) and every wait cut it short.
    pub linger: Duration,
    /// Address space for the checkpoint, its largest size.
    pub map_bytes: usize,
    /// Start although spend was forgotten (a backup, a cut): the caller charges the gap and then
    /// calls `gap_charged`.
    pub accept_gap: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: [0; 16],
            schema: 1,
            record_tags: Vec::new(),
            segment_bytes: 16 << 20,
            queue_bytes_max: 4 << 20,
            record_bytes_max: 64 << 10,
            free_bytes_min: 32 << 20,
            space_retry: Duration::from_secs(1),
            linger: Duration::ZERO,
            map_bytes: 16 << 30,
            accept_gap: false,
        }
    }
}

impl Options {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`OpenError::BadOption`] names the first that is out of its range.
    pub fn check(&self) -> Result<(), OpenError> {
        let bad = |why: String| Err(OpenError::BadOption(why));
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return bad(format!(
                "segment_bytes is {}; it must be {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}",
                self.segment_bytes
            ));
        }
        if self.segment_bytes % SEGMENT_HEADER as u64 != 0 {
            return bad(format!(
                "segment_bytes is {}; it must be a multiple of {SEGMENT_HEADER}",
                self.segment_bytes
            ));
        }
        if self.record_tags.contains(&CLOSE_TAG) {
            return bad(format!("record type {CLOSE_TAG} is the journal's own"));
        }
        let longest = PAYLOAD_BYTES_MAX.min(self.payload_room());
        if self.record_bytes_max == 0 || self.record_bytes_max > longest {
            return bad(format!(
                "record_bytes_max is {}; it must be 1 to {longest} in segments of {} bytes",
                self.record_bytes_max, self.segment_bytes
            ));
        }
        let least = frame_bytes(self.record_bytes_max);
        if !(least..=QUEUE_BYTES_MAX).contains(&self.queue_bytes_max) {
            return bad(format!(
                "queue_bytes_max is {}; it must be {least} to {QUEUE_BYTES_MAX}",
                self.queue_bytes_max
            ));
        }
        Ok(())
    }

    /// The longest payload that fits an empty segment.
    fn payload_room(&self) -> usize {
        let room = self.segment_bytes as usize - SEGMENT_HEADER;
        room - frame_bytes(0)
    }

    pub(crate) fn known(&self) -> Known {
        let mut tags = [false; 256];
        for tag in &self.record_tags {
            tags[usize::from(*tag)] = true;
        }
        Known {
            tags,
            schema: self.schema,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_and_each_bound_is_named() {
        assert!(Options::default().check().is_ok());
        let bad = [
            (
                Options {
                    segment_bytes: 1,
                    ..Options::default()
                },
                "segment_bytes",
            ),
            (
                Options {
                    segment_bytes: u64::MAX,
                    ..Options::default()
                },
                "segment_bytes",
            ),
            (
                Options {
                    segment_bytes: (16 << 20) + 1,
                    ..Options::default()
                },
                "a multiple",
            ),
            (
                Options {
                    record_tags: vec![1, 0],
                    ..Options::default()
                },
                "type 0",
            ),
            (
                Options {
                    record_bytes_max: 0,
                    ..Options::default()
                },
                "record_bytes_max",
            ),
            (
                Options {
                    segment_bytes: SEGMENT_BYTES_MIN,
                    ..Options::default()
                },
                "record_bytes",
            ),
            (
                Options {
                    queue_bytes_max: 100,
                    ..Options::default()
                },
                "queue_bytes_max",
            ),
            (
                Options {
                    queue_bytes_max: usize::MAX,
                    ..Options::default()
                },
                "queue_bytes_max",
            ),
        ];
        for (options, word) in bad {
            let message = options.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
