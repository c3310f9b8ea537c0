//! The ledger at work: [`cascaded_core::ledger`] decides, [`cascaded_journal`] remembers.
//!
//! One mutex holds the ledger, its clock and the end of the journal's queue. A change is decided,
//! queued and applied under it, so the journal has the records in the order in which they were
//! applied; nothing in there waits for a disk. What is queued becomes durable on the journal's own
//! threads. A third thread, the keeper, lets time pass (windows roll, what is idle is forgotten)
//! and writes checkpoints: it takes what has changed under the mutex and writes it outside.
//!
//! A reservation that the journal has no room for is refused. A settlement never is: it waits in
//! memory, and reservations with it, until the journal has room again.

mod clock;
mod days;
mod engine;
mod error;
mod keeper;
mod limit_set;
mod open;
mod outbox;
mod spend;
#[cfg(test)]
mod tests;

pub use clock::{Clock, ManualClock, SystemClock};
pub use days::{DayTotal, NAME_BYTES_MAX};
pub use engine::{Engine, Entry, Resolved, Stats};
pub use error::{EngineError, OpenError, Unavailable};
pub use keeper::{Config, Gate, KeeperStats};
pub use limit_set::LimitSet;
pub use open::Recovered;
pub use spend::Spend;
