//! What is written to the journal: every change of the ledger, as data.
//!
//! A record says what was decided, with handles, bounds and amounts, so that applying it needs no
//! clock, no time zone and no judgement: the same records give the same state.

use super::codec::{wire_struct, DecodeError, Reader, Since, Wire};
use super::counters::{CounterKey, Open, Roll};
use super::gap::Gap;
use super::holds::{Idempotency, Label, Outcome};
use super::policy::Policy;
use super::rates::{RateChange, RateCharge, RateOpen};
use super::slab::Handle;
use crate::window::Stamp;

/// The version of records that this release writes, and the newest it reads; it reads all before.
///
/// 2: reservations have labels.
pub const RECORD_VERSION: u8 = 2;

/// A reservation: all its counters and rates at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// When.
    pub at: Stamp,
    /// The hold's number.
    pub hold: u64,
    /// The caller's own name for it.
    pub idempotency: Option<Idempotency>,
    /// Which choice of the menu.
    pub choice: u16,
    /// Which ladder that is.
    pub ladder: u16,
    /// Held on every counter: a call costs the same whoever pays.
    pub amount: i64,
    /// The most that each rung of the ladder can cost.
    pub rungs: Vec<i64>,
    /// Hash of the price table it was costed by.
    pub price_hash: u64,
    /// Counters that are created by it.
    pub opens: Vec<Open>,
    /// Counters that begin a new window by it.
    pub rolls: Vec<Roll>,
    /// Rates that are created by it.
    pub rate_opens: Vec<RateOpen>,
    /// The counters it is held on.
    pub counters: Vec<Handle>,
    /// What it takes of rates.
    pub rates: Vec<RateCharge>,
    /// What it is about.
    pub label: Since<2, Option<Label>>,
}

/// A call to a provider is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// Under which hold.
    pub hold: u64,
    /// Which rung of its ladder.
    pub rung: u8,
    /// The most it can cost.
    pub amount: i64,
}

/// How a call to a provider ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptEnd {
    /// Under which hold.
    pub hold: u64,
    /// Which of its attempts, counted from 0.
    pub attempt: u16,
    /// How it ended.
    pub outcome: Outcome,
}

/// A hold needs less than was reserved, because rungs are finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrink {
    /// When.
    pub at: Stamp,
    /// Which hold.
    pub hold: u64,
    /// What stays held.
    pub amount: i64,
}

/// What a request really cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// When.
    pub at: Stamp,
    /// Which hold.
    pub hold: u64,
    /// The sum of what was billed.
    pub posted: i64,
    /// The sum of what may have been billed.
    pub unknown: i64,
    /// Tokens it really used, if known.
    pub tokens: Option<u32>,
    /// Each attempt, for the detail that is kept.
    pub attempts: Vec<Outcome>,
}

/// A hold is given back: nothing was billed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// When.
    pub at: Stamp,
    /// Which hold.
    pub hold: u64,
}

/// A hold is charged in full until there is evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// When.
    pub at: Stamp,
    /// Which hold.
    pub hold: u64,
}

/// Evidence about an unknown charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjust {
    /// When.
    pub at: Stamp,
    /// Which hold.
    pub hold: u64,
    /// So much of what was unknown
    pub unknown: i64,
    /// really cost this much.
    pub posted: i64,
}

/// Evidence about a hold that was settled before. It changes the windows that the hold was
/// charged to; those that the ledger no longer has are told to whoever keeps totals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateAdjust {
    /// When.
    pub at: Stamp,
    /// Which hold.
    pub hold: u64,
    /// The counters and the beginnings of their windows (for rolling ones, when it was reserved).
    pub windows: Vec<PastWindow>,
    /// It cost so much more, or less.
    pub posted: i64,
}

/// One window of one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastWindow {
    /// Whose.
    pub key: CounterKey,
    /// Its first nanosecond.
    pub start_ns: i64,
}

/// A counter's new limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyChange {
    /// Whose.
    pub counter: Handle,
    /// The limit and how it is enforced.
    pub policy: Policy,
}

/// One batch of limits, all at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// When.
    pub at: Stamp,
    /// Counters that are created by it.
    pub opens: Vec<Open>,
    /// Limits of counters.
    pub counters: Vec<PolicyChange>,
    /// Rates that are created by it.
    pub rate_opens: Vec<RateOpen>,
    /// Limits of rates.
    pub rates: Vec<RateChange>,
}

/// How much may be reserved on some counters without waiting for the disk: see `ceiling`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// The counters and their new rooms.
    pub rooms: Vec<Room>,
}

/// The room on one counter from this record on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Whose.
    pub counter: Handle,
    /// Nano-dollars.
    pub room: i64,
}

/// What a crash may have lost: the rooms that the journal shows are charged, until there is
/// evidence. A later record of the same number goes on with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// When it was found out.
    pub at: Stamp,
    /// The number it is listed by, as if it were a hold.
    pub hold: u64,
    /// The counters and what is charged to each.
    pub rooms: Vec<Room>,
}

/// Evidence about what a crash lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// When.
    pub at: Stamp,
    /// Its number.
    pub hold: u64,
    /// Counters of which it is known for themselves what lost calls cost on them.
    pub known: Vec<Room>,
    /// What all lost calls together cost.
    pub posted: i64,
}

/// Time passed: windows roll and what is idle is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// When.
    pub at: Stamp,
    /// Counters that begin a new window.
    pub rolls: Vec<Roll>,
    /// Counters that are forgotten.
    pub counters: Vec<Handle>,
    /// Rates that are forgotten.
    pub rates: Vec<Handle>,
}

wire_struct!(Reserve {
    at,
    hold,
    idempotency,
    choice,
    ladder,
    amount,
    rungs,
    price_hash,
    opens,
    rolls,
    rate_opens,
    counters,
    rates,
    label
});
wire_struct!(Dispatch { hold, rung, amount });
wire_struct!(AttemptEnd {
    hold,
    attempt,
    outcome
});
wire_struct!(Shrink { at, hold, amount });
wire_struct!(Settle {
    at,
    hold,
    posted,
    unknown,
    tokens,
    attempts
});
wire_struct!(Release { at, hold });
wire_struct!(Unknown { at, hold });
wire_struct!(Adjust {
    at,
    hold,
    unknown,
    posted
});
wire_struct!(LateAdjust {
    at,
    hold,
    windows,
    posted
});
wire_struct!(PastWindow { key, start_ns });
wire_struct!(PolicyChange { counter, policy });
wire_struct!(Limits {
    at,
    opens,
    counters,
    rate_opens,
    rates
});
wire_struct!(Ceilings { rooms });
wire_struct!(Room { counter, room });
wire_struct!(Lost { at, hold, rooms });
wire_struct!(Found {
    at,
    hold,
    known,
    posted
});
wire_struct!(Sweep {
    at,
    rolls,
    counters,
    rates
});

/// Writes the enum of records: each variant a struct of the same name, with its tag.
macro_rules! records {
    ($($tag:literal $name:ident),* $(,)?) => {
        /// One change of the ledger.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // Each variant is the struct of its name, which says what it is.
        pub enum Record {
            $($name($name)),*
        }

        $(impl From<$name> for Record {
            fn from(record: $name) -> Self {
                Self::$name(record)
            }
        })*

        /// The tags that this version writes.
        pub const TAGS: &[u8] = &[$($tag),*];

        impl Record {
            /// Writes the record behind what is already in `out`.
            pub fn encode(&self, out: &mut Vec<u8>) {
                out.push(RECORD_VERSION);
                match self {
                    $(Self::$name(record) => {
                        out.push($tag);
                        record.put(out);
                    })*
                }
            }

            /// The type of record, as [`Record::encode`] writes it behind the version.
            pub fn tag(&self) -> u8 {
                match self {
                    $(Self::$name(_) => $tag),*
                }
            }

            /// Reads exactly one record.
            pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                let mut reader = Reader::new(bytes);
                reader.read_version(RECORD_VERSION)?;
                match u8::get(&mut reader)? {
                    $($tag => {
                        let record = $name::get(&mut reader)?;
                        reader.finish(Self::$name(record))
                    })*
                    tag if RESERVED_TAGS.contains(&tag) => Err(DecodeError::ReservedTag(tag)),
                    tag => Err(DecodeError::UnknownTag(tag)),
                }
            }
        }
    };
}

records! {
    1 Reserve,
    2 Dispatch,
    3 AttemptEnd,
    4 Shrink,
    5 Settle,
    6 Release,
    7 Unknown,
    8 Adjust,
    9 LateAdjust,
    10 Limits,
    11 Sweep,
    32 Ceilings,
    33 Gap,
    37 Lost,
    38 Found,
}

/// Tags of record types to come: a fleet's leases granted, returned and reported.
pub const RESERVED_TAGS: std::ops::RangeInclusive<u8> = 34..=36;

impl Record {
    /// Whether it reserves money. A disk that is nearly full must refuse these and still take all
    /// others, so that what was reserved can be settled.
    pub fn is_reservation(&self) -> bool {
        matches!(self, Self::Reserve(_))
    }
}

/// The journal did not take the record, and so nothing happened: its disk is full, or it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTaken;

/// Takes records in the order in which they are applied.
pub trait RecordSink {
    /// Called with a decided record just before it is applied. What is not taken is not applied.
    fn push(&mut self, record: &Record) -> Result<(), NotTaken>;
}

impl RecordSink for Vec<Record> {
    fn push(&mut self, record: &Record) -> Result<(), NotTaken> {
        self.push(record.clone());
        Ok(())
    }
}

/// Encoded records, one after the other.
impl RecordSink for Vec<u8> {
    fn push(&mut self, record: &Record) -> Result<(), NotTaken> {
        record.encode(self);
        Ok(())
    }
}
