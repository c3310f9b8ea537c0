//! The words of a text, and the lexicon of the built-in domains.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::BUCKETS;

const LEXICON: &str = include_str!("lexicon.txt");
/// Longest phrase of the lexicon, in words.
const PHRASE_WORDS_MAX: usize = 4;
/// What a pair of words counts beside a single one.
const PAIR_WEIGHT: f32 = 0.5;

/// The built-in domains that have words of their own, in the order of their numbers.
pub static DOMAINS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut names = Vec::new();
    for (name, _) in lines() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
});

static PHRASES: LazyLock<HashMap<String, Vec<usize>>> = LazyLock::new(|| {
    let mut phrases: HashMap<String, Vec<usize>> = HashMap::new();
    for (name, list) in lines() {
        let domain = DOMAINS.iter().position(|known| *known == name).unwrap_or(0);
        for phrase in list.split(", ") {
            phrases
                .entry(split(phrase).join(" "))
                .or_default()
                .push(domain);
        }
    }
    phrases
});

fn lines() -> impl Iterator<Item = (&'static str, &'static str)> {
    LEXICON
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(": "))
}

/// Runs of letters and digits, in lower case. `+` and `#` stay where they end one (C++, C#).
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for character in text.chars() {
        if character.is_alphanumeric() {
            word.extend(character.to_lowercase());
        } else if matches!(character, '+' | '#') && !word.is_empty() {
            word.push(character);
        } else if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// For each domain how strongly its words speak, the logarithm of their number.
pub(super) fn append_domains(words: &[String], to: &mut Vec<f32>) {
    let mut counts = vec![0.0_f32; DOMAINS.len()];
    let mut phrase = String::new();
    for start in 0..words.len() {
        phrase.clear();
        for word in words[start..].iter().take(PHRASE_WORDS_MAX) {
            if !phrase.is_empty() {
                phrase.push(' ');
            }
            phrase.push_str(word);
            for domain in PHRASES.get(&phrase).into_iter().flatten() {
                counts[*domain] += 1.0;
            }
        }
    }
    to.extend(counts.iter().map(|count| count.ln_1p()));
}

/// Which words and pairs there are, each in one of [`BUCKETS`], as a vector of length 1.
pub(super) fn append_hashes(words: &[String], to: &mut Vec<f32>) {
    let mut buckets = vec![0.0_f32; BUCKETS];
    let mut seen = HashSet::new();
    for word in words {
        let hash = fnv(0xcbf2_9ce4_8422_2325, word);
        if seen.insert(hash) {
            buckets[bucket(hash)] += 1.0;
        }
    }
    for pair in words.windows(2) {
        let hash = fnv(fnv(fnv(0xcbf2_9ce4_8422_2325, &pair[0]), " "), &pair[1]);
        if seen.insert(hash) {
            buckets[bucket(hash)] += PAIR_WEIGHT;
        }
    }
    let length = buckets
        .iter()
        .map(|value| value * value)
        .sum::<f32>()
        .sqrt();
    let scale = if length > 0.0 { length.recip() } else { 0.0 };
    to.extend(buckets.iter().map(|value| value * scale));
}

fn bucket(hash: u64) -> usize {
    usize::try_from((hash >> 32) % BUCKETS as u64).unwrap_or(0)
}

/// FNV-1a: heads are fitted to it, so it must not change.
fn fnv(start: u64, text: &str) -> u64 {
    text.bytes().fold(start, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
