//! The pure core of `cascaded`: no Python, no I/O, time passed in.
