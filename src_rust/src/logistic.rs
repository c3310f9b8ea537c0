//! Fitting of small logistic regressions. See `cascaded_core::logistic`.

use cascaded_core::logistic::{fit, Row, Unfit};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The weights of a logistic regression, pulled to `prior`; works without the GIL.
#[pyfunction]
pub fn fit_logistic(
    py: Python<'_>,
    rows: Vec<(Vec<u32>, Vec<f64>)>,
    good: Vec<bool>,
    prior: Vec<f64>,
    cost: f64,
) -> PyResult<Vec<f64>> {
    if rows.len() != good.len() {
        return Err(PyValueError::new_err("as many rows as labels are needed"));
    }
    py.detach(|| {
        let rows: Vec<Row> = rows
            .into_iter()
            .zip(good)
            .map(|((places, values), good)| Row {
                places,
                values,
                good,
            })
            .collect();
        fit(&rows, &prior, cost)
    })
    .map_err(|unfit| {
        PyValueError::new_err(match unfit {
            Unfit::Cost => "cost must be above 0".to_owned(),
            Unfit::Row(number) => format!("row {number} is not sound"),
        })
    })
}
