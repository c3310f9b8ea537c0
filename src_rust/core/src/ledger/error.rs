//! Why the ledger did not do as it was told. Refusals of a demand are values, not errors.

use std::fmt;

/// The call was wrong or impossible; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerError {
    /// A sum would not fit 64 bits.
    Overflow,
    /// An amount of money below zero.
    NegativeAmount(i64),
    /// Nothing on the menu, so nothing can be chosen.
    EmptyMenu,
    /// More of something than one call may bring.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// More of something than this ledger may hold; evict idle ones or raise the limit.
    Full {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// The counter at this position of the demand no longer exists: look it up again.
    StaleCounter(usize),
    /// The rate at this position of the demand no longer exists: look it up again.
    StaleRate(usize),
    /// The counter at this position was already named in the demand.
    SameCounter(usize),
    /// The rate at this position was already named in the demand.
    SameRate(usize),
    /// No such time zone.
    UnknownZone(String),
    /// A policy or quota outside of what can be enforced, and why.
    Invalid(&'static str),
    /// The idempotency key was used with another body, for this hold.
    Conflict(u64),
    /// There never was such a hold.
    NoSuchHold(u64),
    /// The hold was settled, released or adjusted before; later evidence is an adjustment.
    AlreadyResolved(u64),
    /// The hold is charged as unknown: only evidence may change it now.
    ChargedAsUnknown(u64),
    /// The hold is not charged as unknown, so there is nothing to adjust.
    NothingUnknown(u64),
    /// A call under this hold may have been billed, so it cannot be given back.
    MayBeBilled(u64),
    /// A further attempt would not be covered: this much of the hold is left.
    BeyondHold {
        /// Which hold.
        hold: u64,
        /// What its attempts have left of it.
        left: i64,
    },
    /// The journal did not take the record: its disk is full, or it stopped.
    NotJournalled,
    /// The ledger's own tables disagree, which is a bug in it.
    Inconsistent,
    /// No attempt of that number under this hold.
    NoSuchAttempt(u64),
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overflow => write!(f, "a sum of money would not fit 64 bits of nano-dollars"),
            Self::NegativeAmount(amount) => write!(f, "{amount} nano-dollars is below zero"),
            Self::EmptyMenu => write!(f, "the menu is empty: offer at least one choice"),
            Self::TooMany { what, max } => write!(f, "more than {max} {what} in one call"),
            Self::Full { what, max } => {
                write!(
                    f,
                    "the ledger holds {max} {what} already: evict idle ones or raise the limit"
                )
            }
            Self::StaleCounter(at) => write!(f, "counter {at} of the demand is gone: look it up"),
            Self::StaleRate(at) => write!(f, "rate {at} of the demand is gone: look it up"),
            Self::SameCounter(at) => write!(f, "counter {at} of the demand is named twice"),
            Self::SameRate(at) => write!(f, "rate {at} of the demand is named twice"),
            Self::UnknownZone(zone) => {
                write!(
                    f,
                    "unknown time zone {zone:?}: use an IANA name such as Europe/Berlin"
                )
            }
            Self::Invalid(why) => write!(f, "{why}"),
            Self::Conflict(hold) => {
                write!(
                    f,
                    "the idempotency key belongs to hold {hold}, which had another body"
                )
            }
            Self::NoSuchHold(hold) => write!(f, "there is no hold {hold}"),
            Self::AlreadyResolved(hold) => write!(f, "hold {hold} is resolved; adjust it instead"),
            Self::ChargedAsUnknown(hold) => {
                write!(
                    f,
                    "hold {hold} is charged as unknown; adjust it by evidence instead"
                )
            }
            Self::NothingUnknown(hold) => write!(f, "hold {hold} has no such unknown charge"),
            Self::MayBeBilled(hold) => {
                write!(
                    f,
                    "a call under hold {hold} may have been billed: settle it instead"
                )
            }
            Self::BeyondHold { hold, left } => {
                write!(
                    f,
                    "hold {hold} covers only {left} nano-dollars more: take another hold"
                )
            }
            Self::NotJournalled => write!(f, "the journal takes no more: free its disk"),
            Self::Inconsistent => write!(f, "the ledger's tables disagree: please report this"),
            Self::NoSuchAttempt(hold) => write!(f, "hold {hold} has no such attempt"),
        }
    }
}

impl std::error::Error for LedgerError {}

/// A record does not fit the state it is applied to: the journal is not this ledger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit(pub &'static str);

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record does not fit the ledger: {}", self.0)
    }
}

impl std::error::Error for Misfit {}
