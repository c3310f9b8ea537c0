//! What past windows came to, as the checkpoint's `Days` table keeps it.

use std::sync::Arc;

use cascaded_core::ledger::{Balance, CounterKey, ScopeKind, WindowTotal};
use cascaded_core::window::{Bounds, WindowKind};

/// The longest name of a scope, in bytes: with its zone it is part of a key of at most 511.
pub const NAME_BYTES_MAX: usize = 256;

const VERSION: u8 = 1;
/// Window, scope and the window's first nanosecond.
const KEY_FIXED: usize = 2 + 8;
/// Version and five numbers.
const VALUE_BYTES: usize = 1 + 5 * 8;

/// What one window of one counter came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayTotal {
    /// Whose.
    pub key: CounterKey,
    /// Which window.
    pub bounds: Bounds,
    /// What it came to.
    pub balance: Balance,
}

/// Ordered by kind of window, then scope, then time.
pub(crate) fn encode(total: &WindowTotal) -> (Vec<u8>, Vec<u8>) {
    let WindowTotal {
        key,
        bounds,
        balance,
    } = total;
    let mut name = vec![key.window as u8, key.scope as u8];
    name.extend_from_slice(&bounds.start_ns.to_be_bytes());
    name.extend_from_slice(key.id.as_bytes());
    name.push(0);
    name.extend_from_slice(key.zone.as_bytes());
    let mut value = vec![VERSION];
    let numbers = [
        bounds.end_ns,
        balance.posted,
        balance.held,
        balance.unknown,
        balance.overrun,
    ];
    for number in numbers {
        value.extend_from_slice(&number.to_be_bytes());
    }
    (name, value)
}

/// `None` for an entry of another version.
pub(crate) fn decode(name: &[u8], value: &[u8]) -> Option<DayTotal> {
    if name.len() < KEY_FIXED || value.len() != VALUE_BYTES || value[0] != VERSION {
        return None;
    }
    let (fixed, names) = name.split_at(KEY_FIXED);
    // A zone has no zero byte in it; a scope's name might.
    let end = names.iter().rposition(|byte| *byte == 0)?;
    let text = |bytes: &[u8]| Some(Arc::from(std::str::from_utf8(bytes).ok()?));
    let number = |at: usize| {
        let bytes = value.get(1 + 8 * at..9 + 8 * at)?;
        Some(i64::from_be_bytes(bytes.try_into().ok()?))
    };
    Some(DayTotal {
        key: CounterKey {
            window: WindowKind::from_code(fixed[0])?,
            scope: ScopeKind::from_code(fixed[1])?,
            id: text(&names[..end])?,
            zone: text(&names[end + 1..])?,
        },
        bounds: Bounds {
            start_ns: i64::from_be_bytes(fixed[2..].try_into().ok()?),
            end_ns: number(0)?,
        },
        balance: Balance {
            posted: number(1)?,
            held: number(2)?,
            unknown: number(3)?,
            overrun: number(4)?,
        },
    })
}
