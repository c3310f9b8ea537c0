//! Addresses of IPv6. Those of IPv4 are numbers, and found with them.

use std::net::Ipv6Addr;

use super::{stands_alone, Kind, Span};

const MAX_V6: usize = 45;

/// Finds what stands around two colons and reads as an address.
pub fn find_v6(text: &[u8], found: &mut Vec<Span>) {
    let mut done = 0;
    for colon in memchr::memchr_iter(b':', text) {
        if colon < done {
            continue;
        }
        let mut start = colon;
        let lowest = colon.saturating_sub(MAX_V6).max(done);
        while start > lowest && is_v6(text[start - 1]) {
            start -= 1;
        }
        let mut end = colon + 1;
        let highest = text.len().min(colon + MAX_V6);
        while end < highest && is_v6(text[end]) {
            end += 1;
        }
        done = end;
        while end > start && text[end - 1] == b'.' {
            end -= 1;
        }
        if is_address(&text[start..end]) && stands_alone(text, start, end) {
            found.push(Span {
                start,
                end,
                kind: Kind::Ip,
            });
        }
    }
}

fn is_v6(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || byte == b':' || byte == b'.'
}

/// `::` and what has no digit at all is more often code than an address.
fn is_address(candidate: &[u8]) -> bool {
    let telling = candidate
        .iter()
        .filter(|byte| byte.is_ascii_hexdigit())
        .count()
        > 1
        || candidate == b"::1";
    telling
        && candidate.iter().any(u8::is_ascii_digit)
        && std::str::from_utf8(candidate).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}
