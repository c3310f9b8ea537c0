//! How much of a stream's end must wait, because what follows may make a match of it.

use super::ban::{read, Reading, MAX_IBAN_BYTES};
use super::keys::MAX_PEM_BYTES;

/// The longest that a word waits: no token that is seen whole is longer.
const MAX_WORD: usize = 4096;
/// The longest that digits and the signs between them wait.
const MAX_NUMBER: usize = 48;
/// Nothing waits longer, whatever comes.
pub const MAX_TAIL_BYTES: usize = MAX_PEM_BYTES;

/// From where on the end of a text may be the beginning of something that is looked for. What is
/// before it can be judged now: no text that follows changes what is found there.
pub fn tail_start(text: &str) -> usize {
    let bytes = text.as_bytes();
    let start = word(bytes)
        .min(number(bytes))
        .min(iban(bytes))
        .min(pem(bytes));
    // What was found already is not cut.
    let cut = super::find(text, super::Kinds::ALL)
        .into_iter()
        .find(|span| span.start < start && start < span.end);
    cut.map_or(start, |span| span.start)
}

/// Where the last word begins.
fn word(text: &[u8]) -> usize {
    let lowest = text.len().saturating_sub(MAX_WORD);
    let mut start = text.len();
    while start > lowest && in_word(text[start - 1]) {
        start -= 1;
    }
    start
}

/// What mailboxes, tokens, passwords and addresses are made of: not the letters of other scripts.
fn in_word(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"`,;<>(){}[]".contains(&byte)
}

/// Where the digits at the end begin, with what may stand between them.
fn number(text: &[u8]) -> usize {
    let lowest = text.len().saturating_sub(MAX_NUMBER);
    let mut start = text.len();
    while start > lowest && in_number(text[start - 1]) {
        start -= 1;
    }
    while start < text.len() && !(text[start].is_ascii_digit() || b"+(".contains(&text[start])) {
        start += 1;
    }
    start
}

fn in_number(byte: u8) -> bool {
    byte.is_ascii_digit() || b" .,-/()\t+\xc2\xa0x".contains(&byte)
}

/// Where an IBAN begins that is not at its end yet.
fn iban(text: &[u8]) -> usize {
    let lowest = text.len().saturating_sub(MAX_IBAN_BYTES);
    (lowest..text.len())
        .find(|at| matches!(read(text, *at), Reading::Begun))
        .unwrap_or(text.len())
}

/// Where a private key begins that is not at its end yet.
fn pem(text: &[u8]) -> usize {
    let lowest = text.len().saturating_sub(MAX_PEM_BYTES);
    let Some(begin) = memchr::memmem::rfind(&text[lowest..], b"-----BEGIN ") else {
        return text.len();
    };
    let ended = memchr::memmem::find(&text[lowest + begin..], b"-----END ").is_some_and(|end| {
        text[lowest + begin + end + 9..]
            .windows(5)
            .any(|five| five == b"-----")
    });
    if ended {
        text.len()
    } else {
        lowest + begin
    }
}
