//! What a limit is and what happens near it.

use super::balance::Balance;
use super::codec::{wire_code, wire_struct};

/// One in basis points.
pub const WHOLE_BP: u16 = 10_000;
/// How far utilisation must fall below `degrade_bp` before strong ladders return.
pub const HYSTERESIS_BP: u16 = 200;

/// What happens when a demand does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// It passes, with a warning.
    Warn = 0,
    /// It is refused.
    Block = 1,
    /// It is refused; and before that, from `degrade_bp`, only cheap ladders pass.
    Degrade = 2,
    /// It passes, and what would have been refused is noted.
    Shadow = 3,
}

impl Mode {
    /// The mode with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Warn, Self::Block, Self::Degrade, Self::Shadow]
            .get(usize::from(code))
            .copied()
    }

    /// Whether a limit in this mode is never overspent.
    pub fn is_hard(self) -> bool {
        matches!(self, Self::Block | Self::Degrade)
    }
}

/// Who set a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Origin {
    /// A profile or a tier: replaced when they change.
    Profile = 0,
    /// The configuration: replaced on reload.
    File = 1,
    /// An administrator at run time: kept over reloads by whoever sends them, and never forgotten.
    Api = 2,
    /// Nobody any more: the counter may be forgotten once nothing is open on it.
    Retired = 3,
}

impl Origin {
    /// The origin with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Profile, Self::File, Self::Api, Self::Retired]
            .get(usize::from(code))
            .copied()
    }
}

/// The limit of a counter and how it is enforced. It may change while the counter lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// L in nano-dollars; `None` only counts.
    pub limit: Option<i64>,
    /// What happens when a demand does not fit.
    pub mode: Mode,
    /// From this share of the limit, posted and unknown, it warns. Basis points.
    pub warn_bp: u16,
    /// From this share, held included, only cheap ladders pass (mode `Degrade`). Basis points.
    pub degrade_bp: u16,
    /// The share that may be used up, held included. Basis points, at most all of it.
    pub block_bp: u16,
    /// Who set it.
    pub origin: Origin,
}

wire_code!(Mode, "mode");
wire_code!(Origin, "origin");
wire_struct!(Policy {
    limit,
    mode,
    warn_bp,
    degrade_bp,
    block_bp,
    origin
});

impl Policy {
    /// A limit enforced as by default: warn at 70%, degrade at 90%, block at 100%.
    pub fn degrade(limit: i64) -> Self {
        Self {
            limit: Some(limit),
            mode: Mode::Degrade,
            warn_bp: 7_000,
            degrade_bp: 9_000,
            block_bp: WHOLE_BP,
            origin: Origin::Profile,
        }
    }

    /// No limit: it only counts.
    pub fn unlimited() -> Self {
        Self {
            limit: None,
            ..Self::degrade(0)
        }
    }

    /// Why this cannot be enforced, if it cannot.
    pub fn fault(&self) -> Option<&'static str> {
        if self.limit.is_some_and(|limit| limit < 0) {
            return Some("a limit must not be below zero");
        }
        if self.block_bp > WHOLE_BP {
            return Some("block_at must not be above 1.0: a hard budget is never overspent");
        }
        None
    }

    /// What may be used in all, or `None` without a limit.
    pub fn cap(&self) -> Option<i64> {
        let limit = i128::from(self.limit?);
        let cap = limit * i128::from(self.block_bp) / i128::from(WHOLE_BP);
        i64::try_from(cap).ok()
    }

    /// Whether an amount fits beside what is used. Nothing always fits: it costs nothing.
    pub(crate) fn fits(&self, balance: Balance, amount: i64) -> bool {
        let Some(cap) = self.cap() else { return true };
        amount == 0
            || balance
                .used()
                .checked_add(amount)
                .is_some_and(|used| used <= cap)
    }

    /// Whether `amount` is at least this share of the limit. Never without a limit.
    pub(crate) fn reaches(&self, amount: i64, share_bp: u16) -> bool {
        let Some(limit) = self.limit else {
            return false;
        };
        let whole = i128::from(WHOLE_BP);
        i128::from(amount) * whole >= i128::from(limit) * i128::from(share_bp)
    }

    /// Whether only cheap ladders pass, given whether that was so until now.
    pub(crate) fn degraded(&self, balance: Balance, until_now: bool) -> bool {
        if self.mode != Mode::Degrade {
            return false;
        }
        let share = if until_now {
            self.degrade_bp.saturating_sub(HYSTERESIS_BP)
        } else {
            self.degrade_bp
        };
        self.reaches(balance.used(), share)
    }

    /// `amount` in basis points of the limit; `None` without a limit.
    pub fn share_bp(&self, amount: i64) -> Option<u32> {
        let limit = i128::from(self.limit?).max(1);
        let share = i128::from(amount) * i128::from(WHOLE_BP) / limit;
        Some(u32::try_from(share).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(posted: i64) -> Balance {
        Balance {
            posted,
            ..Balance::default()
        }
    }

    #[test]
    fn the_cap_is_a_share_of_the_limit() {
        let policy = Policy {
            block_bp: 9_500,
            ..Policy::degrade(1_001)
        };
        assert_eq!(policy.cap(), Some(950), "rounded down");
        assert!(policy.fits(used(900), 50) && !policy.fits(used(900), 51));
        assert!(policy.fits(used(5_000), 0), "what is free always fits");
        assert!(!policy.fits(used(5), i64::MAX));
        assert!(Policy::unlimited().fits(used(i64::MAX), i64::MAX));
        assert_eq!(Policy::degrade(i64::MAX).cap(), Some(i64::MAX));
    }

    #[test]
    fn degrading_sticks_a_little() {
        let policy = Policy::degrade(10_000);
        assert!(!policy.degraded(used(8_999), false));
        assert!(policy.degraded(used(9_000), false));
        assert!(policy.degraded(used(8_800), true));
        assert!(!policy.degraded(used(8_799), true));
        let block = Policy {
            mode: Mode::Block,
            ..policy
        };
        assert!(!block.degraded(used(9_999), true));
        assert!(
            Policy::degrade(0).degraded(used(0), false),
            "nothing is all of nothing"
        );
        assert!(!Policy::unlimited().degraded(used(i64::MAX), false));
    }

    #[test]
    fn what_cannot_be_enforced_is_told() {
        assert!(Policy::degrade(-1).fault().is_some());
        assert!(Policy {
            block_bp: 10_001,
            ..Policy::degrade(1)
        }
        .fault()
        .is_some());
        assert_eq!(Policy::degrade(0).fault(), None);
        assert_eq!(Policy::degrade(200).share_bp(30), Some(1_500));
        assert_eq!(Policy::unlimited().share_bp(30), None);
        assert_eq!((Mode::from_code(4), Origin::from_code(4)), (None, None));
        assert!(Mode::Block.is_hard() && !Mode::Shadow.is_hard() && !Mode::Warn.is_hard());
    }
}
