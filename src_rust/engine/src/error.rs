//! Why the engine did not do as it was told.

use std::fmt;

use cascaded_core::ledger::{LedgerError, RestoreError};
use cascaded_journal::AppendError;

/// The ledger cannot take anything just now, or ever again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The journal has no room: its disk or its queue is full. It passes.
    Full(AppendError),
    /// The journal has failed, or was closed: the process must exit and recover.
    Faulted(String),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(error) => error.fmt(f),
            Self::Faulted(why) => f.write_str(why),
        }
    }
}

/// A call that did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineError {
    /// The call was wrong, or the ledger is full.
    Ledger(LedgerError),
    /// The journal does not take it.
    Unavailable(Unavailable),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ledger(error) => error.fmt(f),
            Self::Unavailable(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for EngineError {}

impl From<LedgerError> for EngineError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<Unavailable> for EngineError {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why)
    }
}

/// Why a state folder cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The journal or its checkpoint.
    Journal(cascaded_journal::OpenError),
    /// The checkpoint is not a ledger's.
    Restore(RestoreError),
    /// A record that cannot be read, or does not fit what comes before it.
    Record {
        /// Its place in the journal.
        seq: u64,
        /// What is wrong.
        why: String,
    },
    /// What has to be written first cannot be written.
    Recover(EngineError),
}

impl OpenError {
    /// One word for it, for programs.
    pub fn kind(&self) -> &'static str {
        use cascaded_journal::OpenError as Journal;
        match self {
            Self::Journal(Journal::Locked { .. }) => "locked",
            Self::Journal(Journal::ReadOnly { .. }) => "read_only",
            Self::Journal(Journal::NoSpace { .. }) => "no_space",
            Self::Journal(Journal::UnknownRecord { .. } | Journal::Newer { .. }) => "newer",
            Self::Journal(Journal::GapUncharged { .. }) => "gap",
            Self::Journal(Journal::BadOption(_)) => "option",
            Self::Journal(Journal::Io { .. }) => "io",
            Self::Journal(Journal::Damaged(_) | Journal::Checkpoint(_))
            | Self::Restore(_)
            | Self::Record { .. } => "damaged",
            Self::Recover(_) => "unavailable",
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(error) => error.fmt(f),
            Self::Restore(error) => write!(f, "{error}; restore a backup of the state folder"),
            Self::Record { seq, why } => write!(
                f,
                "record {seq} of the journal: {why}; restore a backup of the state folder"
            ),
            Self::Recover(error) => write!(f, "open holds cannot be charged: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<cascaded_journal::OpenError> for OpenError {
    fn from(error: cascaded_journal::OpenError) -> Self {
        Self::Journal(error)
    }
}

impl From<RestoreError> for OpenError {
    fn from(error: RestoreError) -> Self {
        Self::Restore(error)
    }
}
