//! TOML with the line of every key and value, and *all* of its syntax errors.
//!
//! Python's `tomllib` knows no lines and stops at the first error. This is the only parser of the
//! configuration, so lines and values cannot disagree. Numbers with a point cross as the text that
//! was written, because a price must stay exact.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3::IntoPyObjectExt;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

/// `(line, column, message)`; both count from 1, columns in characters.
type Fault = (usize, usize, String);

/// Reads a TOML document.
///
/// Returns `(table, faults)`. A table is `{key: (line, kind, value)}` in the order of the text;
/// `kind` is TOML's word for the type, and `value` is a `str` (strings, dates, floats as written),
/// `int` (64 bits), `bool`, `list` of such triples or another such table. With faults (the first of
/// each line) the table is what could be made out. The parser bounds nesting (80 levels).
#[pyfunction]
pub fn toml_tree<'py>(py: Python<'py>, text: &str) -> PyResult<(Bound<'py, PyDict>, Vec<Fault>)> {
    let (document, errors) = py.detach(|| DeTable::parse_recoverable(text));
    let mut reader = Reader {
        py,
        places: Places::of(text),
        faults: Vec::with_capacity(errors.len()),
    };
    for error in errors {
        let start = error.span().map_or(text.len(), |span| span.start);
        reader.faults.push((start, error.message().to_owned()));
    }
    let table = reader.table(document.get_ref())?;
    Ok((table, reader.faults_by_line()))
}

/// Where the lines of a text begin.
struct Places<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Places<'t> {
    fn of(text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(after_newlines).collect(),
        }
    }

    /// The line of a byte offset, from 1.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset)
    }

    /// The column of a byte offset, in characters, from 1.
    fn column(&self, offset: usize) -> usize {
        let start = self.starts[self.line(offset) - 1];
        // A byte-order mark, and an offset inside a character, are no characters of the line.
        self.text[start..]
            .char_indices()
            .take_while(|&(at, _)| start + at < offset)
            .filter(|&(_, letter)| letter != '\u{feff}')
            .count()
            + 1
    }
}

struct Reader<'py, 't> {
    py: Python<'py>,
    places: Places<'t>,
    /// Byte offset and message.
    faults: Vec<(usize, String)>,
}

impl<'py> Reader<'py, '_> {
    /// One fault a line: the parser's second thoughts about a broken line only confuse, and
    /// counting columns for all of them would be quadratic in a long line.
    fn faults_by_line(mut self) -> Vec<Fault> {
        self.faults.sort_by_key(|&(offset, _)| offset);
        self.faults
            .dedup_by_key(|(offset, _)| self.places.line(*offset));
        let placed = self.faults.into_iter().map(|(offset, message)| {
            let (line, column) = (self.places.line(offset), self.places.column(offset));
            (line, column, message)
        });
        placed.collect()
    }

    fn table(&mut self, table: &DeTable<'_>) -> PyResult<Bound<'py, PyDict>> {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let found = PyDict::new(self.py);
        for (key, value) in entries {
            found.set_item(key.get_ref().as_ref(), self.node(key.span().start, value)?)?;
        }
        Ok(found)
    }

    fn node(&mut self, offset: usize, value: &Spanned<DeValue<'_>>) -> PyResult<Bound<'py, PyAny>> {
        let kind = value.get_ref().type_str();
        let inner = self.value(value)?;
        let triple = (self.places.line(offset), kind, inner);
        Ok(triple.into_pyobject(self.py)?.into_any())
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>) -> PyResult<Bound<'py, PyAny>> {
        let start = value.span().start;
        match value.get_ref() {
            DeValue::String(text) => self.python(text.as_ref()),
            DeValue::Float(float) => self.python(float.as_str()),
            DeValue::Datetime(moment) => self.python(moment.to_string()),
            DeValue::Boolean(truth) => Ok(truth.into_pyobject(self.py)?.to_owned().into_any()),
            DeValue::Integer(digits) => {
                let number = i64::from_str_radix(digits.as_str(), digits.radix());
                if number.is_err() {
                    let message = "integer out of range, expected at most 64 bits";
                    self.faults.push((start, message.to_owned()));
                }
                self.python(number.unwrap_or_default())
            }
            DeValue::Array(items) => {
                let found = PyList::empty(self.py);
                for item in items.iter() {
                    found.append(self.node(item.span().start, item)?)?;
                }
                Ok(found.into_any())
            }
            DeValue::Table(table) => Ok(self.table(table)?.into_any()),
        }
    }

    fn python<T: IntoPyObject<'py>>(&self, value: T) -> PyResult<Bound<'py, PyAny>> {
        value.into_bound_py_any(self.py)
    }
}
