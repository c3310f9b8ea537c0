//! Domains. See `cascaded_core::domains` for what they are.

use cascaded_core::domains;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A text in numbers, as little-endian 32-bit floats.
#[pyfunction]
pub fn domain_features<'py>(py: Python<'py>, text: &str) -> Bound<'py, PyBytes> {
    let numbers = domains::features(text);
    let bytes: Vec<u8> = numbers.iter().flat_map(|one| one.to_le_bytes()).collect();
    PyBytes::new(py, &bytes)
}

/// Keywords and patterns of the operator's own domains.
#[pyclass(frozen, module = "cascaded._core")]
pub struct DomainRoutes(domains::Routes);

#[pymethods]
impl DomainRoutes {
    /// From `(keywords, patterns)` of each domain.
    #[new]
    fn new(routes: Vec<(Vec<String>, Vec<String>)>) -> PyResult<Self> {
        domains::Routes::new(&routes)
            .map(Self)
            .map_err(|error| PyValueError::new_err((error.problem, error.route)))
    }

    /// `(domain, keywords, patterns)` of those that are found.
    fn find(&self, text: &str) -> Vec<(usize, usize, usize)> {
        let found = self.0.find(text).into_iter();
        found
            .map(|(route, hits)| (route, hits.keywords, hits.patterns))
            .collect()
    }
}
