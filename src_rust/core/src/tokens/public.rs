//! The vocabularies that OpenAI publishes.

use std::sync::OnceLock;

use super::merges::{Merges, Scratch};
use super::split::Pieces;

/// A published vocabulary with the expression that cuts its texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// `cl100k_base`: GPT-4, GPT-3.5, embeddings.
    Cl100k,
    /// `o200k_base`: GPT-4o and later, the o-series, gpt-oss.
    O200k,
}

static CL100K: OnceLock<Merges> = OnceLock::new();
static O200K: OnceLock<Merges> = OnceLock::new();

impl Encoding {
    fn cell(self) -> &'static OnceLock<Merges> {
        match self {
            Self::Cl100k => &CL100K,
            Self::O200k => &O200K,
        }
    }

    fn merges(self) -> &'static Merges {
        self.cell().get_or_init(|| {
            Merges::load(match self {
                Self::Cl100k => include_bytes!(concat!(env!("OUT_DIR"), "/cl100k.merges")),
                Self::O200k => include_bytes!(concat!(env!("OUT_DIR"), "/o200k.merges")),
            })
        })
    }

    /// Whether the tables are in memory; the first count loads them, which takes a while.
    #[must_use]
    pub fn is_loaded(self) -> bool {
        self.cell().get().is_some()
    }

    /// Loads the tables now.
    pub fn load(self) {
        self.merges();
    }

    /// How many tokens the vocabulary has, without the special ones.
    #[must_use]
    pub fn tokens(self) -> u32 {
        self.merges().len()
    }

    /// Tokens in a text, exactly as `tiktoken` counts `encode_ordinary`: what looks like a special
    /// token (`<|endoftext|>`) is ordinary text.
    #[must_use]
    pub fn count(self, text: &str) -> usize {
        let merges = self.merges();
        let mut scratch = Scratch::default();
        Pieces::of(text, self)
            .map(|piece| merges.count(piece.as_bytes(), &mut scratch))
            .sum()
    }
}
