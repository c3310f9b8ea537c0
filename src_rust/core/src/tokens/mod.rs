//! How many tokens a text or a chat has: exactly for public vocabularies and for any Hugging Face
//! `tokenizer.json`, and never less than the truth for the others.
//!
//! Everything is linear in the input, also on input that was made to hurt.

mod bound;
mod chat;
mod encoder;
mod hugging_face;
mod json;
mod merges;
mod public;
mod split;
#[cfg(test)]
mod tests;

use std::fmt;

pub use bound::bytes_bound;
pub use chat::PromptCount;
pub use encoder::{Encoded, Encoder};
pub use hugging_face::{HuggingFace, TOKENIZER_JSON_BYTES_MAX};
pub use json::{JSON_BYTES_MAX, JSON_DEPTH_MAX};
pub use public::Encoding;

/// What turns text into tokens.
pub enum Vocabulary {
    /// A published vocabulary with OpenAI's documented chat format.
    OpenAi(Encoding),
    /// The tokens of `o200k_base` in gpt-oss's own chat format.
    Harmony,
    /// A tokenizer that the operator supplied.
    HuggingFace(Box<HuggingFace>),
    /// Not public: bounded by bytes, see [`bytes_bound`].
    Unknown,
}

/// Tokens in a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TextCount {
    /// The count, or a bound that it does not pass.
    pub tokens: usize,
    /// Whether it is the count.
    pub exact: bool,
}

impl Vocabulary {
    /// A public vocabulary by `tiktoken`'s name for it.
    #[must_use]
    pub fn public(name: &str) -> Option<Self> {
        match name {
            "cl100k_base" => Some(Self::OpenAi(Encoding::Cl100k)),
            "o200k_base" => Some(Self::OpenAi(Encoding::O200k)),
            "o200k_harmony" => Some(Self::Harmony),
            _ => None,
        }
    }

    /// A vocabulary from the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenError::Tokenizer`] when it is too large or not one.
    pub fn from_tokenizer_json(json: &[u8]) -> Result<Self, TokenError> {
        Ok(Self::HuggingFace(Box::new(HuggingFace::from_json(json)?)))
    }

    fn encoding(&self) -> Option<Encoding> {
        match self {
            Self::OpenAi(encoding) => Some(*encoding),
            Self::Harmony => Some(Encoding::O200k),
            Self::HuggingFace(_) | Self::Unknown => None,
        }
    }

    /// Whether a count can start at once; a public vocabulary is loaded by its first use.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.encoding().is_none_or(Encoding::is_loaded)
    }

    /// Loads what the first count would load.
    pub fn load(&self) {
        if let Some(encoding) = self.encoding() {
            encoding.load();
        }
    }

    /// Tokens in a text. Special tokens that are spelled out in it are ordinary text.
    #[must_use]
    pub fn count_text(&self, text: &str) -> TextCount {
        match self {
            Self::OpenAi(encoding) => TextCount {
                tokens: encoding.count(text),
                exact: true,
            },
            Self::Harmony => TextCount {
                tokens: Encoding::O200k.count(text),
                exact: true,
            },
            Self::HuggingFace(tokenizer) => tokenizer.count(text),
            Self::Unknown => TextCount {
                tokens: bytes_bound(text),
                exact: false,
            },
        }
    }

    /// Tokens in a chat prompt, with its format's overhead: `messages` is the JSON array of a
    /// chat-completions body, `tools` that of its tools.
    ///
    /// # Errors
    /// What is wrong with the JSON, or that it is larger or deeper than we read.
    pub fn count_chat(
        &self,
        messages: &[u8],
        tools: Option<&[u8]>,
    ) -> Result<PromptCount, TokenError> {
        chat::count(self, messages, tools)
    }
}

/// Why there is no count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// More bytes than we read.
    TooLarge {
        /// Bytes given.
        bytes: usize,
        /// Bytes read at most.
        max: usize,
    },
    /// Brackets nested deeper than we read.
    TooDeep {
        /// Levels read at most.
        max: usize,
    },
    /// Not UTF-8 from this byte on.
    NotUtf8 {
        /// Offset of the first wrong byte.
        offset: usize,
    },
    /// Not JSON, with the parser's word for it.
    Json(String),
    /// JSON, but not a list of messages or tools: what was expected.
    Shape(&'static str),
    /// Not a tokenizer that we can use, and why.
    Tokenizer(String),
}

impl fmt::Display for TokenError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, max } => {
                write!(to, "the prompt has {bytes} bytes; at most {max} are read")
            }
            Self::TooDeep { max } => {
                write!(to, "the prompt's JSON is nested deeper than {max} levels")
            }
            Self::NotUtf8 { offset } => {
                write!(
                    to,
                    "the prompt is not UTF-8 at byte {offset}; send it as UTF-8"
                )
            }
            Self::Json(problem) => write!(to, "the prompt is not valid JSON: {problem}"),
            Self::Shape(expected) => write!(to, "the prompt's JSON has a wrong shape: {expected}"),
            Self::Tokenizer(problem) => {
                write!(to, "not a Hugging Face tokenizer.json: {problem}")
            }
        }
    }
}

impl std::error::Error for TokenError {}
