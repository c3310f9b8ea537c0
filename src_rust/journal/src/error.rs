//! Everything that can go wrong, as values: each says what to do next.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::Seq;

/// Why a state folder cannot be opened. Nothing is changed on disk when one of these is returned.
#[derive(Debug)]
pub enum OpenError {
    /// Another process holds the state.
    Locked {
        /// The folder that is held.
        dir: PathBuf,
        /// The holder, when it could be read from the lock file.
        pid: Option<u32>,
    },
    /// The folder, or the file system under it, cannot be written.
    ReadOnly {
        /// The folder that cannot be written.
        dir: PathBuf,
    },
    /// No room for the first segment.
    NoSpace {
        /// Bytes that one segment needs.
        needed: u64,
        /// Bytes the file system says are free.
        free: u64,
    },
    /// A record that had been acknowledged can no longer be read.
    Damaged(Damage),
    /// A record of a type this build does not know.
    UnknownRecord {
        /// The type tag found.
        tag: u8,
        /// The record's sequence.
        seq: Seq,
        /// The file that holds it.
        segment: String,
    },
    /// Written by a newer build.
    Newer {
        /// The file that is too new.
        segment: String,
        /// What is too new: `format` or `schema`.
        what: &'static str,
        /// The number found.
        found: u16,
        /// The highest number this build reads.
        known: u16,
    },
    /// The folder was restored from a backup, or cut: spend after `upto_seq` is forgotten.
    GapUncharged {
        /// The last record that survived.
        upto_seq: Seq,
        /// Where the gap came from: `backup` or `cut`.
        reason: String,
    },
    /// An option is out of its range.
    BadOption(String),
    /// The checkpoint store cannot be read.
    Checkpoint(CheckpointError),
    /// Any other error of the file system.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The error.
        error: io::Error,
    },
}

/// Where acknowledged records were lost, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The damaged file, or the one that would follow the missing records.
    pub segment: String,
    /// Byte offset of the first unreadable frame.
    pub offset: u64,
    /// The sequence that should be there.
    pub seq: Seq,
    /// The highest sequence known to have been durable.
    pub durable_seq: Seq,
    /// What proves it.
    pub evidence: Evidence,
}

/// What proves that an unreadable record had been durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A readable frame further on was written after it was flushed.
    LaterFrame,
    /// A later segment starts after it.
    LaterSegment,
    /// The checkpoint includes it.
    Checkpoint,
    /// The segment header is unreadable, but there are frames behind it.
    Header,
}

/// Why a record was not taken. Nothing was queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The disk is full: what is left is kept for settlements.
    Full,
    /// The queue is full, or the next segment is not ready yet: try again in a moment.
    Busy,
    /// The record is longer than the journal takes.
    TooLarge {
        /// Bytes in the record or group.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The type tag was not registered in the options.
    UnknownTag(u8),
    /// A group of no records.
    Empty,
    /// A flush failed earlier: the process must exit and recover.
    Faulted(Fault),
    /// `close` was called.
    Closed,
}

/// A failure of the disk that ends this journal. It is published once and never retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What failed: `write`, `flush`, `prepare`, `checkpoint`, `panic`.
    pub operation: &'static str,
    /// The system's error number, when there is one.
    pub errno: Option<i32>,
    /// The system's words.
    pub message: String,
    /// The last sequence that is known to be durable.
    pub durable_seq: Seq,
}

/// Why a wait for durability ended without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The journal faulted: the record may or may not be on disk.
    Faulted(Fault),
    /// Not durable yet.
    TimedOut,
    /// The journal was closed before that sequence was appended.
    Closed,
}

/// Why a checkpoint was not taken. The previous one still stands.
#[derive(Debug)]
pub enum CheckpointError {
    /// It would include records that are not durable.
    Ahead {
        /// The sequence asked for.
        upto_seq: Seq,
        /// The sequence that is durable.
        durable_seq: Seq,
    },
    /// It would go back.
    Behind {
        /// The sequence asked for.
        upto_seq: Seq,
        /// The sequence already in the checkpoint.
        checkpoint_seq: Seq,
    },
    /// A key of zero bytes, or longer than the store takes.
    BadKey {
        /// Bytes in the key.
        bytes: usize,
    },
    /// The store's map is full: raise `map_bytes`.
    MapFull,
    /// The disk is full. The journal keeps its segments; try again when space returns.
    NoSpace,
    /// The data file is shorter than its own header says, or its header is unreadable.
    Damaged(String),
    /// The journal faulted.
    Faulted(Fault),
    /// `close` was called.
    Closed,
    /// Any other error of the store.
    Store(String),
    /// An error of the file system beside the store.
    Io(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { dir, pid } => {
                let holder = pid.map_or("another process".to_owned(), |p| format!("process {p}"));
                write!(
                    f,
                    "the state in {} is held by {holder}; stop it first, one daemon owns the money",
                    dir.display()
                )
            }
            Self::ReadOnly { dir } => write!(
                f,
                "the state folder {} cannot be written; check its owner, mode and mount",
                dir.display()
            ),
            Self::NoSpace { needed, free } => write!(
                f,
                "a journal segment needs {needed} bytes and {free} are free; make room and start again"
            ),
            Self::Damaged(damage) => damage.fmt(f),
            Self::UnknownRecord { tag, seq, segment } => write!(
                f,
                "record {seq} in {segment} has type {tag}, unknown to this version; start the \
                 version that wrote it, or a newer one"
            ),
            Self::Newer { segment, what, found, known } => write!(
                f,
                "{segment} was written with {what} {found} and this version reads up to {known}; \
                 start the version that wrote it, or a newer one"
            ),
            Self::GapUncharged { upto_seq, reason } => write!(
                f,
                "this state comes from a {reason} and forgets all spend after record {upto_seq}; \
                 start with an explicit gap charge"
            ),
            Self::BadOption(why) => write!(f, "bad journal option: {why}"),
            Self::Checkpoint(error) => write!(f, "the checkpoint cannot be opened: {error}"),
            Self::Io { doing, error } => write!(f, "cannot {doing}: {error}"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let evidence = match self.evidence {
            Evidence::LaterFrame => "a later frame was written after it was flushed",
            Evidence::LaterSegment => "a later segment starts after it",
            Evidence::Checkpoint => "the checkpoint includes it",
            Evidence::Header => "frames follow an unreadable segment header",
        };
        write!(
            f,
            "{} is damaged at byte {}: record {} cannot be read, yet it was durable ({evidence}; \
             durable up to at least {}). Starting would forget spend. Restore a backup of the \
             state folder, or cut the journal here and charge the gap",
            self.segment, self.offset, self.seq, self.durable_seq
        )
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is full: what is left is kept for settlements"),
            Self::Busy => f.write_str("the journal's queue is full: try again in a moment"),
            Self::TooLarge { bytes, max } => {
                write!(
                    f,
                    "a record of {bytes} bytes; the journal takes up to {max}"
                )
            }
            Self::UnknownTag(tag) => write!(f, "record type {tag} is not registered"),
            Self::Empty => f.write_str("a group of no records"),
            Self::Faulted(fault) => fault.fmt(f),
            Self::Closed => f.write_str("the journal is closed"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the journal's {} failed ({}); durable up to record {}; the process must exit and \
             recover",
            self.operation, self.message, self.durable_seq
        )
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faulted(fault) => fault.fmt(f),
            Self::TimedOut => f.write_str("the record is not durable yet"),
            Self::Closed => f.write_str("the journal is closed and never had that record"),
        }
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead {
                upto_seq,
                durable_seq,
            } => write!(
                f,
                "a checkpoint up to {upto_seq} would include records that are not durable \
                 (durable: {durable_seq})"
            ),
            Self::Behind {
                upto_seq,
                checkpoint_seq,
            } => write!(
                f,
                "a checkpoint up to {upto_seq} is older than the one there ({checkpoint_seq})"
            ),
            Self::BadKey { bytes } => write!(f, "a key of {bytes} bytes; keys have 1 to 511"),
            Self::MapFull => f.write_str("the checkpoint's map is full: raise map_bytes"),
            Self::NoSpace => f.write_str("no space for the checkpoint; the journal is kept"),
            Self::Damaged(why) => write!(f, "the checkpoint file is damaged: {why}"),
            Self::Faulted(fault) => fault.fmt(f),
            Self::Closed => f.write_str("the journal is closed"),
            Self::Store(why) => write!(f, "the checkpoint store failed: {why}"),
            Self::Io(error) => write!(f, "the file system failed: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}
impl std::error::Error for Damage {}
impl std::error::Error for AppendError {}
impl std::error::Error for Fault {}
impl std::error::Error for WaitError {}
impl std::error::Error for CheckpointError {}

impl From<CheckpointError> for OpenError {
    fn from(error: CheckpointError) -> Self {
        Self::Checkpoint(error)
    }
}

/// Whether an error means "no room now", which passes, rather than "the disk is failing".
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Whether an error means "this process ran out of something", which passes too.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::INTR,
        Errno::AGAIN,
    ];
    is_no_space(error)
        || passing
            .iter()
            .any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

/// Whether an error means that the folder cannot be written at all.
pub(crate) fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    )
}
