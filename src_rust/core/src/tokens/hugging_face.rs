//! Vocabularies from a Hugging Face `tokenizer.json`.

use std::panic::{catch_unwind, AssertUnwindSafe};

use tokenizers::{NormalizedString, Normalizer, Tokenizer};

use super::{TextCount, TokenError};

/// Largest `tokenizer.json`; those in use have 1 to 35 MB.
pub const TOKENIZER_JSON_BYTES_MAX: usize = 64 << 20;
/// Longest text that is encoded. The library needs about 100 bytes of memory for each of the text,
/// and half a second for a million.
const EXACT_BYTES_MAX: usize = 512 << 10;
/// Longer texts are normalised in slices of this size, for their bound.
const SLICE_BYTES: usize = 16 << 10;
/// A pre-tokenizer may put one space in front of the text.
const LEADING_SPACE: usize = 1;

/// A tokenizer that the operator supplied.
pub struct HuggingFace {
    tokenizer: Tokenizer,
}

impl HuggingFace {
    pub(super) fn from_json(json: &[u8]) -> Result<Self, TokenError> {
        load(json).map(|tokenizer| Self { tokenizer })
    }

    /// Tokens in a text, without those that the tokenizer's template would put around it.
    pub(super) fn count(&self, text: &str) -> TextCount {
        if text.len() <= EXACT_BYTES_MAX {
            // A model that does not know itself (ids out of range) must not end the daemon.
            let encode = AssertUnwindSafe(|| self.tokenizer.encode_fast(text, false));
            if let Ok(Ok(encoding)) = catch_unwind(encode) {
                return TextCount {
                    tokens: encoding.len(),
                    exact: true,
                };
            }
        }
        TextCount {
            tokens: self.normalised_bytes(text) + LEADING_SPACE,
            exact: false,
        }
    }

    /// Bytes of the normal form. There is at most one token for each, as in
    /// [`super::bytes_bound`].
    fn normalised_bytes(&self, text: &str) -> usize {
        let Some(normalizer) = self.tokenizer.get_normalizer() else {
            return text.len();
        };
        slices(text)
            .map(|slice| {
                let mut normalised = NormalizedString::from(slice);
                match normalizer.normalize(&mut normalised) {
                    Ok(()) => normalised.get().len().max(slice.len()),
                    Err(_) => slice.len(),
                }
            })
            .sum()
    }
}

/// The tokenizer of a `tokenizer.json`, for texts as they are.
pub(super) fn load(json: &[u8]) -> Result<Tokenizer, TokenError> {
    if json.len() > TOKENIZER_JSON_BYTES_MAX {
        return Err(TokenError::Tokenizer(format!(
            "it has {} bytes; at most {TOKENIZER_JSON_BYTES_MAX} are read",
            json.len()
        )));
    }
    // The library panics on some files that are JSON but no tokenizer.
    let mut tokenizer = catch_unwind(|| Tokenizer::from_bytes(json))
        .map_err(|_| TokenError::Tokenizer("its parts do not fit together".to_owned()))?
        .map_err(|error| TokenError::Tokenizer(error.to_string()))?;
    // Fixed lengths are for training: they would cut or fill up what is to be counted.
    tokenizer
        .with_truncation(None)
        .map_err(|error| TokenError::Tokenizer(error.to_string()))?;
    tokenizer.with_padding(None);
    // Text that spells a special token is the caller's text.
    tokenizer.set_encode_special_tokens(true);
    Ok(tokenizer)
}

/// A text in slices of whole characters.
fn slices(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (slice, rest) = text.split_at(boundary(text, SLICE_BYTES));
        text = rest;
        (!slice.is_empty()).then_some(slice)
    })
}

/// The last border between characters that is no later than `at`.
pub(super) fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|&border| text.is_char_boundary(border))
        .unwrap_or(0)
}
