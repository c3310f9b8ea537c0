//! Bugs planted on purpose, in test builds only, to prove that the tests would see them.

use std::cell::Cell;

/// A way to get durability wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Publishes a batch before it is flushed.
    AcknowledgeBeforeFlush,
    /// Leaves the length out of a frame's checksum.
    ChecksumSkipsLength,
    /// Takes a damaged record for a torn tail.
    TruncateAtDamage,
    /// Calls a failed flush again and believes its answer.
    RetryFailedFlush,
    /// Uses a new segment before its name is durable.
    SkipFolderFlush,
    /// Believes a tail that was read without flushing it.
    TrustTheTail,
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Whether a bug is planted in this thread.
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Runs something with a bug planted in this thread.
pub(crate) fn with<T>(bug: Bug, run: impl FnOnce() -> T) -> T {
    PLANTED.set(Some(bug));
    let result = run();
    PLANTED.set(None);
    result
}
