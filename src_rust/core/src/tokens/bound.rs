//! The bound for vocabularies that nobody publishes.

use unicode_normalization::{is_nfkc_quick, IsNormalized, UnicodeNormalization};

/// SentencePiece puts one space in front of a text.
const LEADING_SPACE: usize = 1;

/// No fewer tokens than any byte-level vocabulary needs for the text.
///
/// Byte-level encoding starts with one token for each UTF-8 byte and only ever merges neighbours,
/// so the bytes bound the tokens, whatever the merges are. So does SentencePiece with byte
/// fallback, but for the space it adds. Some vocabularies (Qwen's: NFC, Claude's old one: NFKC)
/// bring the text into a normal form first, which can be longer (`ﷺ` from 3 bytes to 33), so the
/// longest of the forms counts.
#[must_use]
pub fn bytes_bound(text: &str) -> usize {
    if text.is_empty() {
        return 0;
    }
    LEADING_SPACE + text.len().max(normalised_bytes(text))
}

/// Bytes of the longer of the two normal forms; 0 where the text is in both already.
fn normalised_bytes(text: &str) -> usize {
    if text.is_ascii() || is_nfkc_quick(text.chars()) == IsNormalized::Yes {
        return 0;
    }
    let composed: usize = text.nfc().map(char::len_utf8).sum();
    let compatible: usize = text.nfkc().map(char::len_utf8).sum();
    composed.max(compatible)
}
