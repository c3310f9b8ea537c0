//! Bugs on purpose. The tests plant one at a time and must then fail, or they prove nothing.
//! Outside tests nothing can be planted and the checks compile to nothing.

/// A way to lose money or to break a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A slot is forgotten as soon as its first moment is outside the window.
    SlotExpiresEarly,
    /// A reservation charges the counters that have room and forgets the one that has not.
    TakesSome,
    /// What a settlement costs above its hold is cut off.
    CutsOverrun,
    /// A settlement posts to whatever window is open now.
    PostsToNewWindow,
    /// A new window forgets that its counter's old holds are still open.
    RollsOverHolds,
    /// A window opens for whatever the clock says, even if it is over.
    ReopensWindow,
    /// A hold can be settled again.
    SettlesTwice,
    /// A call that timed out is given back.
    ReleasesTimeouts,
    /// At recovery open holds are given back.
    ExpiresToFree,
    /// A hold that does not fit is made smaller until it does.
    ShrinksToFit,
    /// The same idempotency key takes another hold.
    ForgetsKeys,
    /// What may be sent at once is taken from a record that is not on the disk yet.
    TrustsUnwrittenRoom,
    /// A room that is made smaller stays as it was until the next one is on the disk.
    LowersLate,
    /// What a settlement gives back is room at once, although the settlement may be lost.
    ReusesReturns,
    /// A new window has the room of the last.
    RoomOutlivesWindow,
    /// At recovery the rooms are not charged.
    ForgetsRooms,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted.
#[cfg(test)]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted: never.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

/// Runs with a bug planted.
#[cfg(test)]
pub(crate) fn with<T>(bug: Option<Bug>, run: impl FnOnce() -> T) -> T {
    struct Unplant;
    impl Drop for Unplant {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    PLANTED.set(bug);
    let _unplant = Unplant;
    run()
}
