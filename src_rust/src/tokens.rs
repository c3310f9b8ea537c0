//! Token counts. See `cascaded_core::tokens` for what they mean.

use cascaded_core::tokens;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Inputs up to here are counted with the GIL held, and are meant to be counted on the event loop.
///
/// Releasing the GIL and waiting to have it back took 150 µs beside a busy thread, and counting
/// this much takes about as long. Longer inputs belong on another thread, and there the count must
/// not keep the GIL from the event loop.
pub const LONG_INPUT_BYTES: usize = 8192;
/// The same for an operator's tokenizer, which counts about 2 MB/s.
const LONG_INPUT_BYTES_SLOW: usize = 512;

/// Runs `count` without the GIL if the input is long.
fn counted<T: Send>(py: Python<'_>, long: bool, count: impl FnOnce() -> T + Send) -> T {
    if long {
        py.detach(count)
    } else {
        count()
    }
}

/// What turns text into tokens.
#[pyclass(frozen, module = "cascaded._core")]
pub struct Vocabulary(tokens::Vocabulary);

/// `(tokens, exact, images_low, images_other, audio_clips, audio_bytes, files, file_bytes)`
type PromptCount = (usize, bool, usize, usize, usize, usize, usize, usize);

#[pymethods]
impl Vocabulary {
    /// A public vocabulary by name, or `None`. Loaded by its first use.
    #[staticmethod]
    fn public(name: &str) -> Option<Self> {
        tokens::Vocabulary::public(name).map(Self)
    }

    /// The vocabulary of models whose own is not public: bounded by bytes.
    #[staticmethod]
    fn unknown() -> Self {
        Self(tokens::Vocabulary::Unknown)
    }

    /// A vocabulary from the content of a Hugging Face `tokenizer.json`.
    #[staticmethod]
    fn from_tokenizer_json(py: Python<'_>, json: &[u8]) -> PyResult<Self> {
        py.detach(|| tokens::Vocabulary::from_tokenizer_json(json))
            .map(Self)
            .map_err(value_error)
    }

    /// Loads what the first count would load.
    fn load(&self, py: Python<'_>) {
        py.detach(|| self.0.load());
    }

    /// Whether an input of this size takes too long for an event loop.
    fn is_long(&self, input_bytes: usize) -> bool {
        let limit = match self.0 {
            tokens::Vocabulary::HuggingFace(_) => LONG_INPUT_BYTES_SLOW,
            _ => LONG_INPUT_BYTES,
        };
        input_bytes > limit || !self.0.is_loaded()
    }

    /// `(tokens, exact)` of a text.
    fn count_text(&self, py: Python<'_>, text: &str) -> (usize, bool) {
        let long = self.is_long(text.len());
        let count = counted(py, long, || self.0.count_text(text));
        (count.tokens, count.exact)
    }

    /// Counts a chat prompt, from the JSON of its messages and tools.
    #[pyo3(signature = (messages, tools=None))]
    fn count_chat(
        &self,
        py: Python<'_>,
        messages: &[u8],
        tools: Option<&[u8]>,
    ) -> PyResult<PromptCount> {
        let long = self.is_long(messages.len() + tools.map_or(0, <[u8]>::len));
        let count =
            counted(py, long, || self.0.count_chat(messages, tools)).map_err(value_error)?;
        Ok((
            count.tokens,
            count.exact,
            count.images_low,
            count.images_other,
            count.audio_clips,
            count.audio_bytes,
            count.files,
            count.file_bytes,
        ))
    }
}

fn value_error(error: tokens::TokenError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// What turns texts into the input of a small model.
#[pyclass(frozen, module = "cascaded._core")]
pub struct TextEncoder(tokens::Encoder);

#[pymethods]
impl TextEncoder {
    /// From the content of a `tokenizer.json`; texts are cut so that there are `max_tokens`.
    #[staticmethod]
    fn from_tokenizer_json(py: Python<'_>, json: &[u8], max_tokens: usize) -> PyResult<Self> {
        py.detach(|| tokens::Encoder::from_tokenizer_json(json, max_tokens))
            .map(Self)
            .map_err(value_error)
    }

    /// `(ids, type_ids)` of a text, or of two that belong together.
    #[pyo3(signature = (text, second=None))]
    fn encode(
        &self,
        py: Python<'_>,
        text: &str,
        second: Option<&str>,
    ) -> PyResult<(Vec<u32>, Vec<u32>)> {
        let encoded = py.detach(|| self.0.encode(text, second));
        encoded
            .map(|found| (found.ids, found.types))
            .ok_or_else(|| PyValueError::new_err("the tokenizer does not know its own tokens"))
    }
}
