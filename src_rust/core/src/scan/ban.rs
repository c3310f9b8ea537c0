//! IBANs: a country, its length, and check digits by mod 97 (ISO 13616).

use super::{is_word, Kind, Span};

/// Countries and the lengths of their IBANs.
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];
/// The longest, with a blank after every four of its characters.
pub const MAX_IBAN_BYTES: usize = 42;
const HEAD: usize = 4;

pub fn find(text: &[u8], found: &mut Vec<Span>) {
    let mut at = 0;
    while at + HEAD < text.len() {
        match read(text, at) {
            Reading::Whole(end) => {
                found.push(Span {
                    start: at,
                    end,
                    kind: Kind::Iban,
                });
                at = end;
            }
            _ => at += 1,
        }
    }
}

/// What stands at a place.
pub enum Reading {
    /// An IBAN, up to there.
    Whole(usize),
    /// The beginning of one, and then the text's end.
    Begun,
    /// None.
    Not,
}

pub fn read(text: &[u8], at: usize) -> Reading {
    let Some(length) = length_at(text, at) else {
        return Reading::Not;
    };
    let mut rest = 0u32;
    let mut head = 0u32;
    let mut count = 0;
    let mut end = at;
    let mut blanks = 0;
    while count < length {
        let Some(byte) = text.get(end) else {
            return Reading::Begun;
        };
        end += 1;
        match byte {
            b' ' | b'-' if blanks == 0 && count >= HEAD => blanks = 1,
            byte if byte.is_ascii_alphanumeric() => {
                blanks = 0;
                count += 1;
                let sum = if count > HEAD { &mut rest } else { &mut head };
                *sum = modulo(*sum, *byte);
            }
            _ => return Reading::Not,
        }
    }
    // The first four go to the end before the remainder is taken.
    let moved = text[at..at + HEAD]
        .iter()
        .fold(rest, |sum, byte| modulo(sum, *byte));
    let alone = text.get(end).is_none_or(|byte| !is_word(*byte));
    if moved == 1 && alone {
        Reading::Whole(end)
    } else {
        Reading::Not
    }
}

/// How long the IBAN is that begins with these four, if one does.
fn length_at(text: &[u8], at: usize) -> Option<usize> {
    let head = text.get(at..at + HEAD)?;
    if !head[2].is_ascii_digit() || !head[3].is_ascii_digit() || (at > 0 && is_word(text[at - 1])) {
        return None;
    }
    let country = [head[0].to_ascii_uppercase(), head[1].to_ascii_uppercase()];
    LENGTHS
        .iter()
        .find(|(code, _)| **code == country)
        .map(|(_, length)| *length)
}

fn modulo(sum: u32, byte: u8) -> u32 {
    let value = match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        _ => u32::from(byte.to_ascii_uppercase() - b'A') + 10,
    };
    (sum * if value < 10 { 10 } else { 100 } + value) % 97
}
