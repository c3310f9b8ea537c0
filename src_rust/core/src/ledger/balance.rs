//! The four sums of a counter, and the only ways in which they change.

use super::codec::wire_struct;

/// Money on one counter in one window, in nano-dollars. None of the sums is ever below zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// P: what calls really cost.
    pub posted: i64,
    /// H: the worst that calls under way may cost.
    pub held: i64,
    /// X: the worst that calls with an unknown end may have cost.
    pub unknown: i64,
    /// O: how much of P and X was above its hold, an alarm in itself.
    pub overrun: i64,
}

wire_struct!(Balance {
    posted,
    held,
    unknown,
    overrun
});

/// Differences to a balance; applied all together or not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub posted: i64,
    pub held: i64,
    pub unknown: i64,
    pub overrun: i64,
}

impl Change {
    /// A reservation, or with a negative amount its release.
    pub(crate) fn hold(amount: i64) -> Self {
        Self {
            held: amount,
            ..Self::default()
        }
    }

    /// The end of a hold: what was held turns into what was posted and what is unknown.
    pub(crate) fn settle(held: i64, posted: i64, unknown: i64) -> Option<Self> {
        let spent = posted.checked_add(unknown)?;
        let overrun = spent.saturating_sub(held).max(0);
        Some(Self {
            posted,
            held: -held,
            unknown,
            overrun,
        })
    }

    /// Evidence: so much of what was unknown really cost `posted`.
    pub(crate) fn adjust(unknown: i64, posted: i64) -> Self {
        let overrun = posted.saturating_sub(unknown).max(0);
        Self {
            posted,
            held: 0,
            unknown: -unknown,
            overrun,
        }
    }

    /// Later evidence about a hold that was settled: it cost so much more, or less.
    pub(crate) fn late(posted: i64) -> Self {
        Self {
            posted,
            overrun: posted.max(0),
            ..Self::default()
        }
    }

    /// The part that belongs to a window, without what is held at large.
    pub(crate) fn without_held(self) -> Self {
        Self { held: 0, ..self }
    }
}

fn sum(old: i64, change: i64) -> Option<i64> {
    old.checked_add(change).filter(|new| *new >= 0)
}

impl Balance {
    /// P + H + X. It fits, because no change is made after which it would not.
    pub fn used(&self) -> i64 {
        self.posted
            .saturating_add(self.held)
            .saturating_add(self.unknown)
    }

    /// P + X: what alerts look at.
    pub fn spent(&self) -> i64 {
        self.posted.saturating_add(self.unknown)
    }

    /// The balance after a change, or `None` if a sum would not fit or fall below zero.
    pub(crate) fn after(self, change: Change) -> Option<Self> {
        let new = Self {
            posted: sum(self.posted, change.posted)?,
            held: sum(self.held, change.held)?,
            unknown: sum(self.unknown, change.unknown)?,
            overrun: sum(self.overrun, change.overrun)?,
        };
        new.posted.checked_add(new.held)?.checked_add(new.unknown)?;
        Some(new)
    }

    /// Without a part that no longer counts.
    pub(crate) fn without(self, part: Self) -> Self {
        Self {
            posted: self.posted.saturating_sub(part.posted),
            held: self.held.saturating_sub(part.held),
            unknown: self.unknown.saturating_sub(part.unknown),
            overrun: self.overrun.saturating_sub(part.overrun),
        }
    }

    /// Whether nothing was ever put on it.
    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overruns_are_what_is_above_the_hold() {
        let held = Balance::default().after(Change::hold(100)).unwrap();
        let within = held.after(Change::settle(100, 60, 40).unwrap()).unwrap();
        assert_eq!(
            within,
            Balance {
                posted: 60,
                held: 0,
                unknown: 40,
                overrun: 0
            }
        );
        let above = held.after(Change::settle(100, 90, 40).unwrap()).unwrap();
        assert_eq!(above.overrun, 30);
        let adjusted = above.after(Change::adjust(40, 45)).unwrap();
        assert_eq!(
            adjusted,
            Balance {
                posted: 135,
                held: 0,
                unknown: 0,
                overrun: 35
            }
        );
        assert_eq!(adjusted.after(Change::late(-100)).unwrap().posted, 35);
        assert_eq!(adjusted.after(Change::late(5)).unwrap().overrun, 40);
        assert_eq!((held.used(), above.spent()), (100, 130));
    }

    #[test]
    fn nothing_wraps_and_nothing_falls_below_zero() {
        let full = Balance::default().after(Change::hold(i64::MAX)).unwrap();
        assert_eq!(full.after(Change::hold(1)), None);
        assert_eq!(
            full.after(Change {
                posted: 1,
                ..Change::default()
            }),
            None,
            "the sum"
        );
        assert_eq!(Balance::default().after(Change::hold(-1)), None);
        assert_eq!(Balance::default().after(Change::adjust(1, 0)), None);
        assert_eq!(Change::settle(0, i64::MAX, 1), None);
    }
}
