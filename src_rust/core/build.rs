//! Prepares the public vocabularies and the Unicode classes that the token counter embeds.
//!
//! The rank files come out of `tiktoken-rs`, whose checksum Cargo.lock pins, so that no binary data
//! lies in this repository. What is written is much smaller than the files: a token is described by
//! the two earlier tokens that it is merged from, in 6 bytes.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::{env, fs};

use regex_syntax::hir::{Class, HirKind};
use tiktoken_rs::{cl100k_base, o200k_base, CoreBPE, Rank};

/// A rank that no vocabulary reaches.
const NO_RANK: Rank = Rank::MAX;
/// Every byte is a token of its own, and these come first.
const BYTE_TOKENS: usize = 256;
const UNICODE_BLOCK: usize = 256;
const UNICODE_CHARS: usize = 0x11_0000;

/// Unicode properties and the class number that `split.rs` knows them by; the rest is class 0.
const CLASSES: [(&str, u8); 7] = [
    (r"[\p{Lu}\p{Lt}]", 1),
    (r"\p{Ll}", 2),
    (r"[\p{Lm}\p{Lo}]", 3),
    (r"\p{M}", 4),
    (r"\p{N}", 5),
    (r"\s", 6),
    (r"[\r\n]", 7),
];

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let out = Path::new(&out);
    write_vocabulary(
        &out.join("cl100k.merges"),
        &cl100k_base().expect("a vocabulary"),
    );
    write_vocabulary(
        &out.join("o200k.merges"),
        &o200k_base().expect("a vocabulary"),
    );
    write_classes(out);
    println!("cargo::rerun-if-changed=build.rs");
}

/// How many beginnings of two bytes and more the tokens have between them, 4 bytes; 256 bytes, one
/// for each of the first tokens; then, for every other token in order, the two tokens that it is
/// merged from, 3 bytes each. All little-endian.
fn write_vocabulary(path: &Path, vocabulary: &CoreBPE) {
    let tokens: Vec<Vec<u8>> = (0..)
        .map_while(|rank| vocabulary.decode_bytes(&[rank]).ok())
        .collect();
    let ranks: HashMap<&[u8], Rank> = tokens.iter().map(Vec::as_slice).zip(0..).collect();
    let mut out: Vec<u8> = vec![0; 4];
    let mut beginnings: HashSet<&[u8]> = HashSet::new();
    for (rank, token) in (0..).zip(&tokens) {
        if token.len() == 1 {
            assert!((rank as usize) < BYTE_TOKENS, "byte tokens come first");
            out.extend(token);
        } else if let Some((left, right)) = last_merge(token, rank, &ranks) {
            out.extend(&left.to_le_bytes()[..3]);
            out.extend(&right.to_le_bytes()[..3]);
            beginnings.extend((2..=token.len()).map(|end| &token[..end]));
        } else {
            break; // special tokens, which text never becomes
        }
    }
    let beginnings = u32::try_from(beginnings.len()).expect("fewer than the bytes of all tokens");
    out[..4].copy_from_slice(&beginnings.to_le_bytes());
    fs::write(path, out).expect("OUT_DIR is writable");
}

/// The two tokens that a token is made of: byte-pair encoding with the earlier ranks only.
fn last_merge(token: &[u8], rank: Rank, ranks: &HashMap<&[u8], Rank>) -> Option<(Rank, Rank)> {
    let mut cuts: Vec<usize> = (0..=token.len()).collect();
    let rank_of = |from: usize, to: usize| ranks.get(&token[from..to]).copied().unwrap_or(NO_RANK);
    while cuts.len() > 3 {
        let joined = |at: &usize| rank_of(cuts[at - 1], cuts[at + 1]);
        let best = (1..cuts.len() - 1).min_by_key(joined)?;
        if joined(&best) >= rank {
            return None;
        }
        cuts.remove(best);
    }
    Some((rank_of(cuts[0], cuts[1]), rank_of(cuts[1], cuts[2])))
}

/// A two-level table: the number of each character's block, and the classes of each distinct block.
fn write_classes(out: &Path) {
    let mut classes = vec![0_u8; UNICODE_CHARS];
    for (pattern, class) in CLASSES {
        for (start, end) in ranges(pattern) {
            classes[start as usize..=end as usize].fill(class);
        }
    }
    let mut blocks: Vec<&[u8]> = Vec::new();
    let mut index = Vec::new();
    for block in classes.chunks(UNICODE_BLOCK) {
        let known = blocks.iter().position(|known| *known == block);
        let number = known.unwrap_or_else(|| {
            blocks.push(block);
            blocks.len() - 1
        });
        index.push(u8::try_from(number).expect("fewer than 256 distinct blocks"));
    }
    fs::write(out.join("unicode.index"), index).expect("OUT_DIR is writable");
    fs::write(out.join("unicode.blocks"), blocks.concat()).expect("OUT_DIR is writable");
}

fn ranges(pattern: &str) -> Vec<(char, char)> {
    let hir = regex_syntax::parse(pattern).expect("a valid pattern");
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => class
            .ranges()
            .iter()
            .map(|range| (range.start(), range.end()))
            .collect(),
        HirKind::Class(Class::Bytes(class)) => class
            .ranges()
            .iter()
            .map(|range| (char::from(range.start()), char::from(range.end())))
            .collect(),
        other => panic!("{pattern} is not one class of characters: {other:?}"),
    }
}
