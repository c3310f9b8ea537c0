//! `cascaded._core`: the Rust core as Python sees it. Convert and call, nothing else.

mod config;

#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use crate::config::toml_tree;
}
