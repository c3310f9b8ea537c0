//! What guardrails look for in texts. Every search is linear: anchors found in one pass, bounded
//! looks around them, and regular expressions whose repetitions are bounded.

mod ban;
mod cards;
mod emails;
pub mod injection;
mod keys;
pub mod linear;
mod numbers;
mod places;
mod plain;
mod tail;
#[cfg(test)]
mod tests;

pub use plain::plain;
pub use tail::{tail_start, MAX_TAIL_BYTES};

/// What a found piece of text is. The order is the order of precedence where two overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A key, token, password or private key.
    Secret,
    /// An e-mail address.
    Email,
    /// An IBAN, its check digits right.
    Iban,
    /// A payment card's number of a known brand, its check digit right.
    Card,
    /// A US social security number.
    Ssn,
    /// An address of IPv4 or IPv6.
    Ip,
    /// A passport's number, by the words before it.
    Passport,
    /// A telephone number.
    Phone,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Kind; 8] = [
        Kind::Secret,
        Kind::Email,
        Kind::Iban,
        Kind::Card,
        Kind::Ssn,
        Kind::Ip,
        Kind::Passport,
        Kind::Phone,
    ];

    /// Its name, as operators write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Secret => "secret",
            Kind::Email => "email",
            Kind::Iban => "iban",
            Kind::Card => "card",
            Kind::Ssn => "ssn",
            Kind::Ip => "ip",
            Kind::Passport => "passport",
            Kind::Phone => "phone",
        }
    }
}

/// A place in a text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// What it is.
    pub kind: Kind,
}

/// Kinds as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// All of them.
    pub const ALL: Kinds = Kinds(u16::MAX);

    /// As [`Kinds::bits`] told them.
    pub fn from_bits(bits: u16) -> Self {
        Kinds(bits)
    }

    /// As a number.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Those of these names; what has none is left out.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let bit = |name: &str| Kind::ALL.iter().position(|kind| kind.name() == name);
        Kinds(
            names
                .into_iter()
                .filter_map(bit)
                .fold(0, |bits, place| bits | 1 << place),
        )
    }

    fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }
}

/// Every piece of these kinds that is certain enough, in order and without overlaps.
pub fn find(text: &str, kinds: Kinds) -> Vec<Span> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    keys::find(text, &mut found);
    emails::find(bytes, &mut found);
    ban::find(bytes, &mut found);
    places::find_v6(bytes, &mut found);
    numbers::find(bytes, &mut found);
    found.retain(|span| kinds.has(span.kind));
    without_overlaps(found)
}

/// Of two that overlap the one of higher precedence stays, of equals the longer.
fn without_overlaps(mut found: Vec<Span>) -> Vec<Span> {
    found.sort_by_key(|span| {
        (
            span.kind,
            std::cmp::Reverse(span.end - span.start),
            span.start,
        )
    });
    let mut kept = std::collections::BTreeMap::<usize, Span>::new();
    for span in found {
        let before = kept.range(..span.end).next_back();
        if before.is_none_or(|(_, other)| other.end <= span.start) {
            kept.insert(span.start, span);
        }
    }
    kept.into_values().collect()
}

/// How far before a number its meaning is looked for.
const CONTEXT_BYTES: usize = 48;

/// Whether one of the words, in lower case, stands shortly before this place.
fn preceded_by(text: &[u8], at: usize, words: &[&str]) -> bool {
    let before = text[at.saturating_sub(CONTEXT_BYTES)..at].to_ascii_lowercase();
    words.iter().any(|word| {
        let word = word.as_bytes();
        before
            .windows(word.len())
            .enumerate()
            .any(|(start, window)| {
                window == word && (start == 0 || !before[start - 1].is_ascii_alphabetic())
            })
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Whether neither side of a place goes on as the same word.
fn stands_alone(text: &[u8], start: usize, end: usize) -> bool {
    let goes_on_before = start > 0 && is_word(text[start - 1]);
    let goes_on_after = end < text.len() && is_word(text[end]);
    !goes_on_before && !goes_on_after
}
