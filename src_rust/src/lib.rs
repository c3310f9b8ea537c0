//! `cascaded._core`: the Rust core as Python sees it. Convert and call, nothing else.

mod config;
mod domains;
mod ledger;
mod logistic;
mod rows;
mod scan;
mod tokens;
mod vectors;

#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use crate::config::toml_tree;
    #[pymodule_export]
    use crate::domains::{domain_features, DomainRoutes};
    #[pymodule_export]
    use crate::ledger::{HoldError, Ledger, LedgerFault, LedgerOpenError, LimitSet, ManualClock};
    #[pymodule_export]
    use crate::logistic::fit_logistic;
    #[pymodule_export]
    use crate::scan::{
        data_kinds, injection_sign_names, injection_signs, personal_data, plain, sentences,
        tail_start, text_features, TextModel,
    };
    #[pymodule_export]
    use crate::tokens::{TextEncoder, Vocabulary};
    #[pymodule_export]
    use crate::vectors::{dot, Linear};
    #[pymodule_export]
    const LONG_INPUT_BYTES: usize = crate::tokens::LONG_INPUT_BYTES;
}
