//! Token ids for small models that run here, from their `tokenizer.json`.

use std::panic::{catch_unwind, AssertUnwindSafe};

use tokenizers::{Tokenizer, TruncationParams};

use super::hugging_face::{boundary, load};
use super::TokenError;

/// Bytes that are read of a text for each token it may have: no word has more characters.
const BYTES_PER_TOKEN: usize = 128;

/// What turns a text into a model's input.
pub struct Encoder {
    tokenizer: Tokenizer,
    max_tokens: usize,
}

/// One text, or two that belong together.
pub struct Encoded {
    /// The tokens, with those that the model's template puts around them.
    pub ids: Vec<u32>,
    /// Which of the two texts each is of.
    pub types: Vec<u32>,
}

impl Encoder {
    /// An encoder that cuts its texts so that there are at most `max_tokens`.
    ///
    /// # Errors
    /// [`TokenError::Tokenizer`] when the content is too large, no tokenizer, or `max_tokens` is
    /// too small for its template.
    pub fn from_tokenizer_json(json: &[u8], max_tokens: usize) -> Result<Self, TokenError> {
        let mut tokenizer = load(json)?;
        let truncation = TruncationParams {
            max_length: max_tokens,
            ..TruncationParams::default()
        };
        tokenizer
            .with_truncation(Some(truncation))
            .map_err(|error| TokenError::Tokenizer(error.to_string()))?;
        Ok(Self {
            tokenizer,
            max_tokens,
        })
    }

    /// The tokens of a text, or of two; `None` where the tokenizer fails on it.
    #[must_use]
    pub fn encode(&self, text: &str, second: Option<&str>) -> Option<Encoded> {
        let work = AssertUnwindSafe(|| match second {
            None => self.tokenizer.encode_fast(self.head(text), true),
            Some(second) => self
                .tokenizer
                .encode_fast((self.head(text), self.head(second)), true),
        });
        // A model that does not know itself (ids out of range) must not end the daemon.
        let encoding = catch_unwind(work).ok()?.ok()?;
        Some(Encoded {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
        })
    }

    /// As much of a text as can matter.
    fn head<'text>(&self, text: &'text str) -> &'text str {
        &text[..boundary(text, self.max_tokens.saturating_mul(BYTES_PER_TOKEN))]
    }
}
