//! Numbers that name somebody: cards, social security, telephones, passports, IPv4.
//!
//! A text is cut into groups of digits; what a run of neighbouring groups is, their lengths, the
//! signs between them and the words before them tell.

use super::cards::is_card;
use super::{preceded_by, stands_alone, Kind, Span};

/// Groups of one number at most.
const MAX_GROUPS: usize = 8;
/// Between two groups of one number at most: `) `, ` - `.
const MAX_GAP: usize = 3;
/// A longer run of digits is no number of these.
const MAX_DIGITS: usize = 19;
/// `1.1.1.1` is the shortest.
const MIN_DIGITS: usize = 4;
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 7..=16;
/// What may be a telephone number by its form alone has as many.
const PLAIN_PHONE_DIGITS: std::ops::RangeInclusive<usize> = 10..=15;
/// With the zero that such a number begins with at home.
const NATIONAL_DIGITS: std::ops::RangeInclusive<usize> = 10..=12;
const MAX_EXTENSION: usize = 6;

const PHONE_WORDS: &[&str] = &[
    "phone",
    "telephone",
    "tel",
    "call",
    "calling",
    "called",
    "mobile",
    "cell",
    "cellphone",
    "fax",
    "dial",
    "ring",
    "text me",
    "texting",
    "sms",
    "whatsapp",
    "contact",
    "contacted",
    "disconnected",
    "speak",
    "answer",
    "pager",
    "home",
    "office",
    "work",
    "reach",
    "registered",
    "hotline",
    "landline",
    "handset",
    "voicemail",
    "telefon",
    "handy",
    "téléphone",
    "portable",
    "móvil",
    "teléfono",
    "telefono",
    "celular",
    "cellulare",
    "telefone",
    "numéro",
    "rufnummer",
];
const PHONE_NUMBER_WORDS: &[&str] = &[
    "my number",
    "number is",
    "his number",
    "her number",
    "their number",
    "your number",
    "number:",
    "at this number",
    "phone number",
];
const NOT_PHONE_WORDS: &[&str] = &[
    "order",
    "invoice",
    "tracking",
    "isbn",
    "issn",
    "ticket",
    "account",
    "reference",
    "ref",
    "serial",
    "version",
    "id",
    "case",
    "code",
    "zip",
    "$",
    "€",
    "£",
];
const SSN_WORDS: &[&str] = &[
    "ssn",
    "social security",
    "social-security",
    "soc sec",
    "tax id",
    "itin",
    "taxpayer",
];
const PASSPORT_WORDS: &[&str] = &[
    "passport",
    "passeport",
    "reisepass",
    "pasaporte",
    "passaporto",
];
const CARD_WORDS: &[&str] = &[
    "card",
    "visa",
    "mastercard",
    "amex",
    "credit",
    "debit",
    "pan",
];
const VERSION_WORDS: &[&str] = &["version", "release", "v", "build", "firmware", "section"];

#[derive(Clone, Copy)]
struct Group {
    start: usize,
    end: usize,
}

impl Group {
    fn len(self) -> usize {
        self.end - self.start
    }
}

pub fn find(text: &[u8], found: &mut Vec<Span>) {
    let groups = groups(text);
    let mut first = 0;
    while first < groups.len() {
        let mut last = first;
        while last + 1 < groups.len() && joined(text, groups[last], groups[last + 1]) {
            last += 1;
        }
        in_run(text, &groups[first..=last], found);
        first = last + 1;
    }
}

fn groups(text: &[u8]) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if !text[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        while at < text.len() && text[at].is_ascii_digit() {
            at += 1;
        }
        groups.push(Group { start, end: at });
    }
    groups
}

/// Whether two groups may belong to one number.
fn joined(text: &[u8], one: Group, next: Group) -> bool {
    let gap = &text[one.end..next.start];
    gap.len() <= MAX_GAP && gap.iter().all(|byte| b" .-/()\t\xc2\xa0".contains(byte))
}

/// Every reading of every few neighbours of a run; overlaps are settled later.
fn in_run(text: &[u8], run: &[Group], found: &mut Vec<Span>) {
    for from in 0..run.len() {
        passport(text, run[from], found);
        for to in from..run.len().min(from + MAX_GROUPS) {
            let window = &run[from..=to];
            let digits: usize = window.iter().map(|group| group.len()).sum();
            if digits > MAX_DIGITS {
                break;
            }
            if digits < MIN_DIGITS {
                continue;
            }
            let whole = from == 0 && to + 1 == run.len();
            if let Some(kind) = reading(text, window, whole) {
                let (start, end) = reach(text, window, kind);
                found.push(Span { start, end, kind });
            }
        }
    }
}

fn reading(text: &[u8], window: &[Group], whole: bool) -> Option<Kind> {
    let (start, end) = (window[0].start, window[window.len() - 1].end);
    let digits: Vec<u8> = text[start..end]
        .iter()
        .copied()
        .filter(u8::is_ascii_digit)
        .collect();
    if card(text, window, &digits) {
        Some(Kind::Card)
    } else if ssn(text, window, &digits) {
        Some(Kind::Ssn)
    } else if v4(text, window) {
        Some(Kind::Ip)
    } else if (whole || printed(text, window)) && phone(text, window, &digits) {
        Some(Kind::Phone)
    } else {
        None
    }
}

fn card(text: &[u8], window: &[Group], digits: &[u8]) -> bool {
    if !is_card(digits) {
        return false;
    }
    let (start, end) = (window[0].start, window[window.len() - 1].end);
    let spaced = window
        .windows(2)
        .all(|pair| matches!(gap(text, pair), b" " | b"-"));
    let lengths: Vec<usize> = window.iter().map(|group| group.len()).collect();
    let printed = match lengths[..] {
        [_] | [4, 6, 4 | 5] => true,
        [4, 4, 4, ..] => lengths[3..].iter().all(|length| *length <= 4),
        _ => preceded_by(text, start, CARD_WORDS),
    };
    printed && spaced && stands_alone(text, start, end) && !decimal(text, start, end)
}

fn gap<'a>(text: &'a [u8], pair: &[Group]) -> &'a [u8] {
    &text[pair[0].end..pair[1].start]
}

/// Whether it is a part of a number with a point.
fn decimal(text: &[u8], start: usize, end: usize) -> bool {
    let point = |byte: u8| byte == b'.' || byte == b',';
    let before = start > 1 && point(text[start - 1]) && text[start - 2].is_ascii_digit();
    let after = end + 1 < text.len() && point(text[end]) && text[end + 1].is_ascii_digit();
    before || after
}

fn ssn(text: &[u8], window: &[Group], digits: &[u8]) -> bool {
    let (start, end) = (window[0].start, window[window.len() - 1].end);
    let lengths: Vec<usize> = window.iter().map(|group| group.len()).collect();
    let said = || preceded_by(text, start, SSN_WORDS);
    let formed = match lengths[..] {
        [3, 2, 4] => match (gap(text, &window[..2]), gap(text, &window[1..])) {
            (b"-", b"-") => !longer(text, start, end),
            (b" ", b" ") | (b".", b".") => said(),
            _ => false,
        },
        [9] => said(),
        _ => false,
    };
    formed && stands_alone(text, start, end) && plausible_ssn(digits)
}

/// Whether a dash ties it to further digits.
fn longer(text: &[u8], start: usize, end: usize) -> bool {
    let before = start > 1 && text[start - 1] == b'-' && text[start - 2].is_ascii_digit();
    let after = end + 1 < text.len() && text[end] == b'-' && text[end + 1].is_ascii_digit();
    before || after
}

/// No part is all zeros, and nobody has the area 666.
fn plausible_ssn(digits: &[u8]) -> bool {
    let zero = |part: &[u8]| part.iter().all(|digit| *digit == b'0');
    !zero(&digits[..3]) && !zero(&digits[3..5]) && !zero(&digits[5..]) && &digits[..3] != b"666"
}

fn v4(text: &[u8], window: &[Group]) -> bool {
    let (start, end) = (window[0].start, window[window.len() - 1].end);
    let dotted = window.len() == 4 && window.windows(2).all(|pair| gap(text, pair) == b".");
    dotted
        && stands_alone(text, start, end)
        && !decimal(text, start, end)
        && window
            .iter()
            .all(|group| is_octet(&text[group.start..group.end]))
        && !preceded_by(text, start, VERSION_WORDS)
}

fn is_octet(digits: &[u8]) -> bool {
    let value = digits
        .iter()
        .take(4)
        .fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    digits.len() <= 3 && value <= 255 && (digits.len() == 1 || digits[0] != b'0')
}

fn passport(text: &[u8], group: Group, found: &mut Vec<Span>) {
    let mut start = group.start;
    while start > 0 && group.start - start < 2 && text[start - 1].is_ascii_uppercase() {
        start -= 1;
    }
    let long = (6..=9).contains(&group.len());
    if long && stands_alone(text, start, group.end) && preceded_by(text, start, PASSPORT_WORDS) {
        found.push(Span {
            start,
            end: group.end,
            kind: Kind::Passport,
        });
    }
}

/// By its form alone where that is a telephone number's; else by the words before it.
fn phone(text: &[u8], window: &[Group], digits: &[u8]) -> bool {
    let (start, end) = reach(text, window, Kind::Phone);
    if !PHONE_DIGITS.contains(&digits.len()) || decimal(text, start, end) || date(text, window) {
        return false;
    }
    let clear = !(start > 0 && (is_tied(text[start - 1]) || text[start - 1] == b'='))
        && !(end < text.len() && is_tied(text[end]));
    let plus = text[start] == b'+' || digits.starts_with(b"00");
    let formed = (PLAIN_PHONE_DIGITS.contains(&digits.len()) && plus) || printed(text, window);
    let said = || {
        let words = [PHONE_WORDS, PHONE_NUMBER_WORDS];
        words.iter().any(|words| preceded_by(text, start, words))
            && (!preceded_by(text, start, NOT_PHONE_WORDS) || window.len() > 1)
    };
    clear && (formed || said())
}

fn is_tied(byte: u8) -> bool {
    super::is_word(byte) || b"$%#@\\".contains(&byte)
}

/// As telephone numbers are printed in North America and, with a leading zero, in Europe.
fn printed(text: &[u8], window: &[Group]) -> bool {
    let lengths: Vec<usize> = window.iter().map(|group| group.len()).collect();
    let apart = |pair: &[Group]| gap(text, pair) != b"/" && gap(text, pair) != b" ";
    match lengths[..] {
        [3, 3, 4] | [1, 3, 3, 4] => {
            text[window[0].start.saturating_sub(1)] == b'(' || window.windows(2).all(apart)
        }
        [3..=5, ..] if lengths.len() > 1 && text[window[0].start] == b'0' => {
            NATIONAL_DIGITS.contains(&lengths.iter().sum())
        }
        _ => false,
    }
}

/// A day, as 2024-01-31 or 31.01.2024, perhaps with a time.
fn date(text: &[u8], window: &[Group]) -> bool {
    let value = |group: &Group| {
        text[group.start..group.end]
            .iter()
            .fold(0u32, |sum, d| (sum * 10 + u32::from(d - b'0')) % 1_000_000)
    };
    let year = |group: &Group| group.len() == 4 && (1800..=2199).contains(&value(group));
    let small = |group: &Group| group.len() <= 2 && (1..=31).contains(&value(group));
    match window {
        [y, m, d, ..] if year(y) => small(m) && small(d),
        [d, m, y, ..] if year(y) => small(m) && small(d),
        [from, to] => year(from) && year(to),
        _ => false,
    }
}

/// From a telephone number's `+` or `(` to its extension; of others just the digits.
fn reach(text: &[u8], window: &[Group], kind: Kind) -> (usize, usize) {
    let (mut start, mut end) = (window[0].start, window[window.len() - 1].end);
    if kind != Kind::Phone {
        return (start, end);
    }
    if start > 0 && text[start - 1] == b'(' && text[start..end].contains(&b')') {
        start -= 1;
    }
    if start > 0 && text[start - 1] == b'+' {
        start -= 1;
    }
    if text.get(end) == Some(&b'x') {
        let digits = text[end + 1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if (1..=MAX_EXTENSION).contains(&digits) {
            end += 1 + digits;
        }
    }
    (start, end)
}
