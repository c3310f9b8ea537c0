//! What was spent since the start, in running sums.

use cascaded_core::ledger::Receipt;

/// Nano-dollars over all holds, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spend {
    /// Posted since the start.
    pub posted: i64,
    /// Held now.
    pub held: i64,
    /// Charged as unknown now.
    pub unknown: i64,
}

impl Spend {
    pub(crate) fn reserved(&mut self, amount: i64) {
        self.held = self.held.saturating_add(amount);
    }

    /// The end of a hold: what was held was posted, is unknown, or went back.
    pub(crate) fn resolved(&mut self, receipt: &Receipt) {
        let spent = receipt.posted.saturating_add(receipt.unknown);
        let held = spent.saturating_sub(receipt.overrun) + receipt.returned;
        self.held = self.held.saturating_sub(held);
        self.posted = self.posted.saturating_add(receipt.posted);
        self.unknown = self.unknown.saturating_add(receipt.unknown);
    }

    /// Evidence about a hold of which `before` was unknown.
    pub(crate) fn adjusted(&mut self, before: i64, receipt: &Receipt) {
        self.posted = self.posted.saturating_add(receipt.posted);
        let change = receipt.unknown.saturating_sub(before);
        self.unknown = self.unknown.saturating_add(change);
    }
}
