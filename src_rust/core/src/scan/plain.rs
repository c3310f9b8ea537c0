//! A text as it is read rather than as it is written: against letters that only look like others.

use unicode_normalization::UnicodeNormalization;

/// Characters of a text that are looked at.
pub const MAX_CHARS: usize = 100_000;
/// Pieces of base64 that are read, and how long they are at least and at most.
const MAX_PIECES: usize = 8;
const MIN_PIECE: usize = 24;
const MAX_PIECE: usize = 8192;

/// The text in lower case and compatibility form, without what is not seen, look-alikes as the
/// letters that they look like, blanks as one. What it has in base64 is added.
pub fn plain(text: &str) -> String {
    let mut said = folded(text);
    for piece in base64_pieces(text) {
        said.push(' ');
        said.push_str(&folded(&piece));
    }
    said
}

fn folded(text: &str) -> String {
    let mut said = String::with_capacity(text.len().min(MAX_CHARS));
    let mut blank = true;
    let ascii = text.is_ascii();
    let mut push = |character: char| {
        if character.is_whitespace() {
            if !blank {
                said.push(' ');
            }
            blank = true;
        } else if !unseen(character) {
            blank = false;
            said.extend(looks_like(character).to_lowercase());
        }
    };
    if ascii {
        text.chars().take(MAX_CHARS).for_each(&mut push);
    } else {
        text.chars()
            .take(MAX_CHARS)
            .nfkd()
            .filter(|c| !mark(*c))
            .for_each(&mut push);
    }
    said
}

/// Zero width, direction, variation selectors, tags, soft hyphens.
fn unseen(character: char) -> bool {
    matches!(u32::from(character),
        0xAD | 0x34F | 0x61C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F
        | 0x202A..=0x202E | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0
        | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

/// Marks that are put on letters.
fn mark(character: char) -> bool {
    matches!(u32::from(character), 0x300..=0x36F | 0x1AB0..=0x1AFF | 0x20D0..=0x20FF)
}

/// The Latin letter that a Cyrillic, Greek or other one is taken for.
fn looks_like(character: char) -> char {
    match character {
        'а' | 'А' | 'α' | 'Α' | 'ɑ' => 'a',
        'В' | 'Β' => 'b',
        'с' | 'С' | 'ϲ' => 'c',
        'ԁ' => 'd',
        'е' | 'Е' | 'Ε' | 'ε' | 'ҽ' => 'e',
        'ɡ' => 'g',
        'һ' | 'Н' | 'Η' => 'h',
        'і' | 'І' | 'ι' | 'Ι' | 'ı' | 'ӏ' => 'i',
        'ј' | 'Ј' => 'j',
        'к' | 'К' | 'κ' | 'Κ' => 'k',
        'М' | 'Μ' => 'm',
        'ո' | 'Ν' => 'n',
        'о' | 'О' | 'ο' | 'Ο' | 'օ' => 'o',
        'р' | 'Р' | 'ρ' | 'Ρ' => 'p',
        'ѕ' | 'Ѕ' => 's',
        'Т' | 'Τ' | 'τ' => 't',
        'υ' | 'ս' => 'u',
        'ν' | 'ѵ' => 'v',
        'ѡ' | 'ω' => 'w',
        'х' | 'Х' | 'χ' | 'Χ' => 'x',
        'у' | 'У' | 'γ' | 'Υ' => 'y',
        'Ζ' => 'z',
        '‘' | '’' | 'ʼ' | '`' => '\'',
        '“' | '”' => '"',
        '‐' | '‑' | '–' | '—' => '-',
        other => other,
    }
}

/// What long words of base64 say, where that is text.
fn base64_pieces(text: &str) -> Vec<String> {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    text.as_bytes()
        .split(|byte| !is_base64(*byte))
        .filter(|word| (MIN_PIECE..=MAX_PIECE).contains(&word.len()))
        .take(MAX_PIECES)
        .filter_map(decoded)
        .collect()
}

fn decoded(word: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(word.len() * 3 / 4);
    let (mut held, mut bits) = (0u32, 0);
    for byte in word.iter().take_while(|byte| **byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            _ => 63,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xFF) as u8);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let words = text
        .chars()
        .filter(|c| c.is_alphabetic() || *c == ' ')
        .count();
    (words * 10 >= text.chars().count() * 8).then_some(text)
}
