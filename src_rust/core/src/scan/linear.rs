//! A linear model over hashed pieces of words: what scripts fit and guardrails ask. The pieces of a
//! text are made here for both, so that what is asked is what was fitted.

use super::injection::{borne, SIGN_COUNT};
use super::plain;

/// Of the table of weights.
pub const BUCKETS: usize = 1 << 16;
const MAX_WORDS: usize = 4_000;
const MAX_WORD_CHARS: usize = 24;
const GRAMS: std::ops::RangeInclusive<usize> = 3..=5;
const MAGIC: &[u8; 4] = b"CLM1";
const COUNT_BYTES: usize = 4;
const FLOAT_BYTES: usize = 4;
const HEAD_BYTES: usize = (2 + SIGN_COUNT) * FLOAT_BYTES + BUCKETS;
/// Sentences of a text that are looked at, and how long they are at least.
const MAX_SENTENCES: usize = 1_000;
const MIN_SENTENCE_WORDS: usize = 4;
/// Where a longer sentence is cut.
const MAX_SENTENCE_BYTES: usize = 600;

/// What a text is to the model: buckets and their weights in it, of length 1 together.
pub fn features(plain: &str) -> Vec<(u32, f32)> {
    let mut buckets = Vec::with_capacity(plain.len() * 4);
    let mut before: Option<&str> = None;
    for word in words(plain) {
        buckets.push(Hash::new(b'w').text(word).bucket());
        if let Some(before) = before {
            buckets.push(Hash::new(b'b').text(before).text(word).bucket());
        }
        before = Some(word);
        grams(word, &mut buckets);
    }
    buckets.sort_unstable();
    let mut told: Vec<(u32, f32)> = buckets
        .chunk_by(|one, other| one == other)
        .map(|same| (same[0], 1.0 + (same.len() as f32).ln()))
        .collect();
    let length = told
        .iter()
        .map(|(_, value)| value * value)
        .sum::<f32>()
        .sqrt();
    for (_, value) in &mut told {
        *value /= length;
    }
    told
}

fn words(plain: &str) -> impl Iterator<Item = &str> {
    plain
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .take(MAX_WORDS)
}

/// Pieces of a word with its ends marked.
fn grams(word: &str, buckets: &mut Vec<u32>) {
    let marked: Vec<char> = std::iter::once(' ')
        .chain(word.chars().take(MAX_WORD_CHARS))
        .chain([' '])
        .collect();
    for size in GRAMS {
        for piece in marked.windows(size) {
            let hash = piece
                .iter()
                .fold(Hash::new(b'c'), |hash, letter| hash.letter(*letter));
            buckets.push(hash.bucket());
        }
    }
}

/// FNV-1a, its halves folded.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    fn new(kind: u8) -> Self {
        Self(0xcbf2_9ce4_8422_2325).byte(kind)
    }

    fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    fn letter(self, letter: char) -> Self {
        let mut bytes = [0; 4];
        letter
            .encode_utf8(&mut bytes)
            .bytes()
            .fold(self, Self::byte)
    }

    fn text(self, text: &str) -> Self {
        text.bytes().fold(self, Self::byte).byte(0)
    }

    fn bucket(self) -> u32 {
        ((self.0 ^ (self.0 >> 32)) % BUCKETS as u64) as u32
    }
}

/// One or several linear models over the same features, and over the signs of an injection.
pub struct Linear {
    heads: Vec<Head>,
}

struct Head {
    bias: f32,
    scale: f32,
    signs: Vec<f32>,
    weights: Vec<i8>,
}

impl Linear {
    /// Reads what the fitting script wrote: `CLM1`, the number of heads (u32), and of each its
    /// bias, its scale and a weight for every sign (f32), and a weight for every bucket (i8);
    /// little endian. `None` for anything else.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (count, body) = bytes.strip_prefix(MAGIC)?.split_at_checked(COUNT_BYTES)?;
        let count = u32::from_le_bytes(count.try_into().ok()?) as usize;
        if body.is_empty() || Some(body.len()) != count.checked_mul(HEAD_BYTES) {
            return None;
        }
        Some(Self {
            heads: body.chunks_exact(HEAD_BYTES).map(Head::read).collect(),
        })
    }

    /// What each head says of a text, as log-odds.
    pub fn scores(&self, text: &str) -> Vec<f32> {
        self.scores_of(&plain(text))
    }

    fn scores_of(&self, plain: &str) -> Vec<f32> {
        let (features, signs) = (features(plain), borne(plain));
        self.heads
            .iter()
            .map(|head| head.score(&features, &signs))
            .collect()
    }

    /// The most that each head says of any of a text's sentences; of one without any nothing.
    pub fn most(&self, text: &str) -> Option<Vec<f32>> {
        let each = sentences(text).map(|sentence| self.scores(sentence));
        each.reduce(|most, scores| most.iter().zip(scores).map(|(a, b)| a.max(b)).collect())
    }
}

impl Head {
    fn read(bytes: &[u8]) -> Self {
        let (floats, weights) = bytes.split_at((2 + SIGN_COUNT) * FLOAT_BYTES);
        let floats: Vec<f32> = floats
            .chunks_exact(FLOAT_BYTES)
            .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect();
        Self {
            bias: floats[0],
            scale: floats[1],
            signs: floats[2..].to_vec(),
            weights: weights.iter().map(|byte| *byte as i8).collect(),
        }
    }

    fn score(&self, features: &[(u32, f32)], signs: &[usize]) -> f32 {
        let words: f32 = features
            .iter()
            .map(|(bucket, value)| f32::from(self.weights[*bucket as usize]) * value)
            .sum();
        self.bias + self.scale * words + signs.iter().map(|sign| self.signs[*sign]).sum::<f32>()
    }
}

/// The sentences and lines of a text that say something.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '\r'])
        .flat_map(|line| line.split_inclusive(['.', '!', '?', ';', '|']))
        .flat_map(cut)
        .map(str::trim)
        .filter(|sentence| {
            sentence
                .split_whitespace()
                .nth(MIN_SENTENCE_WORDS - 1)
                .is_some()
        })
        .take(MAX_SENTENCES)
}

fn cut(mut sentence: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if sentence.is_empty() {
            return None;
        }
        let end = (0..=sentence.len().min(MAX_SENTENCE_BYTES))
            .rev()
            .find(|end| sentence.is_char_boundary(*end))?;
        let (piece, rest) = sentence.split_at(end);
        sentence = rest;
        Some(piece)
    })
}
