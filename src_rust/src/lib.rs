//! `cascaded._core`: the Rust core as Python sees it. Convert and call, nothing else.


#[pyo3::pymodule]
mod _core {}
