//! Vectors. See `cascaded_core::vectors` for what they are.

use cascaded_core::vectors;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Linear functions of one vector.
#[pyclass(frozen, module = "cascaded._core")]
pub struct Linear(vectors::Linear);

#[pymethods]
impl Linear {
    /// Of weights as little-endian 32-bit floats, function by function, and what is added to each.
    #[new]
    fn new(weights: &[u8], bias: Vec<f32>) -> PyResult<Self> {
        vectors::Linear::new(weights, bias)
            .map(Self)
            .map_err(value_error)
    }

    /// Numbers that a vector must have.
    #[getter]
    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    /// The value of each function.
    fn values(&self, vector: &[u8]) -> PyResult<Vec<f32>> {
        self.0.values(vector).map_err(value_error)
    }
}

/// The dot product of two vectors.
#[pyfunction]
pub fn dot(left: &[u8], right: &[u8]) -> PyResult<f32> {
    vectors::dot(left, right).map_err(value_error)
}

#[allow(clippy::needless_pass_by_value)]
fn value_error(error: vectors::ShapeError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
