//! `cascaded._core`: the Rust core as Python sees it. Convert and call, nothing else.

mod config;
mod ledger;
mod rows;
mod tokens;
mod vectors;

#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use crate::config::toml_tree;
    #[pymodule_export]
    use crate::ledger::{HoldError, Ledger, LedgerFault, LedgerOpenError, LimitSet, ManualClock};
    #[pymodule_export]
    use crate::tokens::{TextEncoder, Vocabulary};
    #[pymodule_export]
    use crate::vectors::{dot, Linear};
    #[pymodule_export]
    const LONG_INPUT_BYTES: usize = crate::tokens::LONG_INPUT_BYTES;
}
