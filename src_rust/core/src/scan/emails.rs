//! E-mail addresses: an `@` with a mailbox before it and a domain behind.

use super::{is_word, Kind, Span};

const MAX_LOCAL: usize = 64;
const MAX_DOMAIN: usize = 253;
const MIN_TOP: usize = 2;

pub fn find(text: &[u8], found: &mut Vec<Span>) {
    for at in memchr::memchr_iter(b'@', text) {
        let start = local_start(text, at);
        let end = domain_end(text, at + 1);
        let alone = start == 0 || !is_word(text[start - 1]);
        if start < at && end > at + 1 && alone {
            found.push(Span {
                start,
                end,
                kind: Kind::Email,
            });
        }
    }
}

fn local_start(text: &[u8], at: usize) -> usize {
    let lowest = at.saturating_sub(MAX_LOCAL);
    let mut start = at;
    while start > lowest && is_local(text[start - 1]) {
        start -= 1;
    }
    while start < at && !text[start].is_ascii_alphanumeric() && text[start] != b'_' {
        start += 1; // a quote, a full stop or a dash before it
    }
    start
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._%+-'".contains(&byte)
}

/// The end of the domain that begins here; its beginning where there is none.
fn domain_end(text: &[u8], begin: usize) -> usize {
    let highest = text.len().min(begin + MAX_DOMAIN);
    let mut end = begin;
    while end < highest && (text[end].is_ascii_alphanumeric() || b".-".contains(&text[end])) {
        end += 1;
    }
    while end > begin && !text[end - 1].is_ascii_alphanumeric() {
        end -= 1; // the full stop of its sentence
    }
    let domain = &text[begin..end];
    let Some(dot) = memchr::memrchr(b'.', domain) else {
        return begin;
    };
    let top = &domain[dot + 1..];
    let sound = top.len() >= MIN_TOP
        && top[0].is_ascii_alphabetic()
        && domain
            .split(|byte| *byte == b'.')
            .all(|label| !label.is_empty());
    if sound {
        end
    } else {
        begin
    }
}
