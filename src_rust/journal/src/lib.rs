//! The ledger's disk: an append-only journal, a checkpoint, and the way back from a crash.
//!
//! ```text
//! append ──▶ queue ──▶ writer thread: write, fdatasync ──▶ durable_seq, event_fd
//!            (bounded)      │ segments, prepared ahead by a second thread
//!                           ▼
//!            checkpoint (LMDB): state + sequence in one commit ──▶ older segments removed
//! open:      snapshot of the checkpoint + the records after its sequence
//! ```
//!
//! A record is a type tag and opaque bytes; the tag must be registered in [`Options`]. What each
//! mishap does:
//!
//! | mishap | answer |
//! |---|---|
//! | a torn last batch | cut off at the next start; it was never acknowledged |
//! | an unreadable record that had been acknowledged | [`OpenError::Damaged`]: restore, or [`Journal::cut`] |
//! | an unknown record type, a newer format or schema | [`OpenError::UnknownRecord`], [`OpenError::Newer`] |
//! | a second process | [`OpenError::Locked`] with the holder's process id |
//! | a read-only folder | [`OpenError::ReadOnly`] |
//! | a full disk | holds get [`AppendError::Full`], settlements go on in a spare segment, and all goes on when space returns |
//! | a failed flush or write, a panic | a [`Fault`], once: all waiters fail, nothing is tried again |
//! | a restored backup, a cut journal | [`OpenError::GapUncharged`] until the caller accepts the gap |
//!
//! Absent on purpose: any look inside payloads, any retry of a failed flush, any clock but the one
//! that times flushes, any lock held during input or output.

mod disk;
mod error;
mod frame;
mod gap;
mod journal;
mod log;
mod options;
#[cfg(test)]
mod planted;
mod probe;
mod recover;
mod scan;
mod shared;
mod signal;
#[cfg(test)]
mod sim;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use disk::{Disk, DiskFile, RealDisk, RealLock};
pub use error::{AppendError, CheckpointError, Damage, Evidence, Fault, OpenError, WaitError};
pub use frame::{FORMAT_VERSION, PAYLOAD_BYTES_MAX};
pub use gap::Gap;
pub use journal::{Backup, Checkpointed, Journal, Recovery, Verified};
pub use log::Replay;
pub use options::{Options, QUEUE_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use probe::flush_time;
pub use recover::Cut;
pub use scan::Record;
pub use shared::Class;
pub use stats::{FlushTimes, Stats, FLUSH_BUCKETS};
pub use store::{Changes, Entries, Entry, Table};

/// The place of a record in the journal: 1, 2, 3 … without holes over the life of a state.
pub type Seq = u64;
