//! The machine's clocks, and clocks that tests own.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::Arc;

use cascaded_core::window::Now;
use rustix::time::{clock_gettime, ClockId};

/// Looks at the clocks.
pub trait Clock: Send + Sync {
    /// All of them at once, as nearly as can be.
    fn now(&self) -> Now;
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

fn nanoseconds(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

impl Clock for SystemClock {
    #[cfg(target_os = "linux")]
    fn now(&self) -> Now {
        Now {
            wall_ns: nanoseconds(ClockId::Realtime),
            mono_ns: nanoseconds(ClockId::Monotonic),
            boot_ns: nanoseconds(ClockId::Boottime),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> Now {
        let mono_ns = nanoseconds(ClockId::Monotonic);
        Now {
            wall_ns: nanoseconds(ClockId::Realtime),
            mono_ns,
            boot_ns: mono_ns,
        }
    }
}

/// A clock that stands still until it is told otherwise.
#[derive(Debug)]
pub struct ManualClock {
    wall_ns: AtomicI64,
    passed_ns: AtomicI64,
}

impl ManualClock {
    /// A clock at this moment, in nanoseconds since the Unix epoch.
    pub fn new(wall_ns: i64) -> Self {
        Self {
            wall_ns: AtomicI64::new(wall_ns),
            passed_ns: AtomicI64::new(0),
        }
    }

    /// Lets time pass, on all clocks.
    pub fn advance(&self, ns: i64) {
        self.passed_ns.fetch_add(ns, SeqCst);
        self.wall_ns.fetch_add(ns, SeqCst);
    }

    /// Sets the wall clock alone, as anyone may.
    pub fn set_wall(&self, wall_ns: i64) {
        self.wall_ns.store(wall_ns, SeqCst);
    }
}

impl Clock for Arc<ManualClock> {
    fn now(&self) -> Now {
        let passed_ns = self.passed_ns.load(SeqCst);
        Now {
            wall_ns: self.wall_ns.load(SeqCst),
            mono_ns: passed_ns,
            boot_ns: passed_ns,
        }
    }
}
