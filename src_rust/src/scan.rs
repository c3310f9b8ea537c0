//! What guardrails look for in texts. See `cascaded_core::scan` for what it means.

use cascaded_core::scan;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::tokens::LONG_INPUT_BYTES;

/// Runs `work` without the GIL if the text is long.
fn done<T: Send>(py: Python<'_>, text: &str, work: impl FnOnce() -> T + Send) -> T {
    if text.len() > LONG_INPUT_BYTES {
        py.detach(work)
    } else {
        work()
    }
}

/// Kinds of personal data as a number, for `personal_data`.
#[pyfunction]
pub fn data_kinds(names: Vec<String>) -> u16 {
    scan::Kinds::named(names.iter().map(String::as_str)).bits()
}

/// `[(start, end, kind)]` of personal data and secrets, in characters and in order.
#[pyfunction]
pub fn personal_data(py: Python<'_>, text: &str, kinds: u16) -> Vec<(usize, usize, &'static str)> {
    done(py, text, || {
        let mut at = Places::new(text);
        let found = scan::find(text, scan::Kinds::from_bits(kinds)).into_iter();
        found
            .map(|span| (at.of(span.start), at.of(span.end), span.kind.name()))
            .collect()
    })
}

/// From which character on a stream's text must wait for what follows.
#[pyfunction]
pub fn tail_start(text: &str) -> usize {
    Places::new(text).of(scan::tail_start(text))
}

/// A text as it is read, in lower case.
#[pyfunction]
pub fn plain(py: Python<'_>, text: &str) -> String {
    done(py, text, || scan::plain(text))
}

/// A text's sentences and lines, as `TextModel.most` looks at them.
#[pyfunction]
pub fn sentences(text: &str) -> Vec<&str> {
    scan::linear::sentences(text).collect()
}

/// Names of all signs of prompt injection, in the order of a model's weights.
#[pyfunction]
pub fn injection_sign_names() -> Vec<&'static str> {
    scan::injection::names().collect()
}

/// Names of the signs of prompt injection in a plain text.
#[pyfunction]
pub fn injection_signs(py: Python<'_>, plain: &str) -> Vec<&'static str> {
    done(py, plain, || scan::injection::signs(plain))
}

/// `[(bucket, weight)]` of a plain text, as linear models see it.
#[pyfunction]
pub fn text_features(py: Python<'_>, plain: &str) -> Vec<(u32, f32)> {
    done(py, plain, || scan::linear::features(plain))
}

/// Linear models over hashed pieces of words.
#[pyclass(frozen, module = "cascaded._core")]
pub struct TextModel(scan::linear::Linear);

#[pymethods]
impl TextModel {
    #[new]
    fn new(weights: &[u8]) -> PyResult<Self> {
        scan::linear::Linear::read(weights)
            .map(Self)
            .ok_or_else(|| PyValueError::new_err("these are no weights of a linear model"))
    }

    /// What each head says of a text, as log-odds.
    fn scores(&self, py: Python<'_>, text: &str) -> Vec<f32> {
        done(py, text, || self.0.scores(text))
    }

    /// The most that each head says of any of a text's sentences; `None` where it has none.
    fn most(&self, py: Python<'_>, text: &str) -> Option<Vec<f32>> {
        done(py, text, || self.0.most(text))
    }
}

/// Turns ascending places in bytes into places in characters.
struct Places<'a> {
    text: &'a str,
    byte: usize,
    character: usize,
    ascii: bool,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            byte: 0,
            character: 0,
            ascii: text.is_ascii(),
        }
    }

    fn of(&mut self, byte: usize) -> usize {
        if self.ascii {
            return byte;
        }
        self.character += self.text[self.byte..byte].chars().count();
        self.byte = byte;
        self.character
    }
}
