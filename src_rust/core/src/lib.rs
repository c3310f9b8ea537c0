//! The pure core of `cascaded`: no Python, no I/O, time passed in.
#![forbid(unsafe_code)]

pub mod domains;
pub mod ledger;
pub mod limiter;
pub mod logistic;
mod planted;
pub mod scan;
pub mod tokens;
pub mod vectors;
pub mod window;
