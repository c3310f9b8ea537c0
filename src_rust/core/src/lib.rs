//! The pure core of `cascaded`: no Python, no I/O, time passed in.
#![forbid(unsafe_code)]

pub mod tokens;
