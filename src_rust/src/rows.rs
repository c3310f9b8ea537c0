//! The limits of `/check` as JSON, written here because a call may meet 48 of them: as Python
//! objects each costs ten times as much.

use std::fmt::Write;

use cascaded_core::ledger::{LimitView, Measure};
use jiff::{tz::TimeZone, Timestamp};

const NS_PER_S: i64 = 1_000_000_000;
const NANO_PER_USD: u64 = 1_000_000_000;
const ROW_BYTES: usize = 256;

/// A list with an object for each limit: money in dollars, rates in their unit.
pub fn rows(limits: &[LimitView]) -> String {
    let mut out = String::with_capacity(2 + limits.len() * ROW_BYTES);
    out.push('[');
    for limit in limits {
        if out.len() > 1 {
            out.push(',');
        }
        row(&mut out, limit).expect("a string takes whatever is written");
    }
    out.push(']');
    out
}

fn row(out: &mut String, limit: &LimitView) -> std::fmt::Result {
    match limit.measure {
        Measure::Money(window) => {
            write!(
                out,
                r#"{{"kind":"budget","window":"{}","limit":"#,
                window.name()
            )?;
            optional(out, limit.limit, usd)?;
            out.push_str(r#","used":"#);
            usd(out, limit.used)?;
            out.push_str(r#","remaining":"#);
            optional(out, limit.remaining, usd)?;
        }
        Measure::Rate(unit, window_ns) => {
            #[allow(clippy::cast_precision_loss)] // a window is below 2^53 ns by a long way
            let window_s = window_ns as f64 / NS_PER_S as f64;
            let unit = unit.name();
            write!(
                out,
                r#"{{"kind":"rate","unit":"{unit}","window_s":{window_s:?},"limit":"#
            )?;
            optional(out, limit.limit, number)?;
            write!(out, r#","used":{},"remaining":"#, limit.used)?;
            optional(out, limit.remaining, number)?;
        }
    }
    write!(out, r#","scope":"{}","id":"#, limit.scope.name())?;
    text(out, &limit.id)?;
    let (fits, enforced, degraded) = (limit.fits, limit.enforced, limit.degraded);
    write!(
        out,
        r#","fits":{fits},"enforced":{enforced},"degraded":{degraded},"resets_at":"#
    )?;
    optional(out, limit.reset_at_ns, moment)?;
    out.push('}');
    Ok(())
}

fn optional(
    out: &mut String,
    value: Option<i64>,
    write: fn(&mut String, i64) -> std::fmt::Result,
) -> std::fmt::Result {
    match value {
        Some(value) => write(out, value),
        None => out.write_str("null"),
    }
}

fn number(out: &mut String, value: i64) -> std::fmt::Result {
    write!(out, "{value}")
}

/// A JSON number with every digit of the exact decimal.
fn usd(out: &mut String, nano_usd: i64) -> std::fmt::Result {
    let amount = nano_usd.unsigned_abs();
    let (dollars, rest) = (amount / NANO_PER_USD, amount % NANO_PER_USD);
    let sign = if nano_usd < 0 { "-" } else { "" };
    write!(out, "{sign}{dollars}")?;
    if rest > 0 {
        write!(out, ".{rest:09}")?;
        out.truncate(out.trim_end_matches('0').len());
    }
    Ok(())
}

/// ISO 8601 in UTC, in whole seconds.
fn moment(out: &mut String, ns: i64) -> std::fmt::Result {
    let second = Timestamp::from_second(ns.div_euclid(NS_PER_S)).unwrap_or(Timestamp::MAX);
    let civil = TimeZone::UTC.to_datetime(second);
    write!(out, r#""{civil}+00:00""#)
}

fn text(out: &mut String, value: &str) -> std::fmt::Result {
    out.push('"');
    for char in value.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            '\0'..='\x1f' => write!(out, "\\u{:04x}", u32::from(char))?,
            _ => out.push(char),
        }
    }
    out.push('"');
    Ok(())
}
