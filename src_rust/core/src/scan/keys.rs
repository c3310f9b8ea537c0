//! Keys, tokens and passwords: by the beginnings that their makers gave them, or by what a line
//! says that it assigns.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::{is_word, Kind, Span};

/// A beginning, and how many characters of a token follow it at least.
const PREFIXES: &[(&str, usize)] = &[
    ("AKIA", 16), // AWS access keys
    ("ASIA", 16),
    ("ABIA", 16),
    ("ghp_", 30), // GitHub
    ("gho_", 30),
    ("ghu_", 30),
    ("ghs_", 30),
    ("ghr_", 30),
    ("github_pat_", 30),
    ("glpat-", 16), // GitLab
    ("xoxb-", 16),  // Slack
    ("xoxp-", 16),
    ("xoxa-", 16),
    ("xoxr-", 16),
    ("xoxs-", 16),
    ("xapp-", 16),
    ("sk-", 20),      // OpenAI, Anthropic and others
    ("sk_live_", 16), // Stripe
    ("sk_test_", 16),
    ("rk_live_", 16),
    ("whsec_", 16),
    ("sk_pro_", 16), // our own issued keys look so
    ("AIza", 30),    // Google
    ("ya29.", 20),
    ("GOCSPX-", 16),
    ("SG.", 30), // SendGrid
    ("hf_", 30), // Hugging Face
    ("npm_", 30),
    ("pypi-", 40),
    ("dop_v1_", 40), // DigitalOcean
    ("shpat_", 30),  // Shopify
    ("gsk_", 30),    // Groq
    ("tskey-", 16),
    ("AGE-SECRET-KEY-", 30),
    ("eyJ", 40), // JSON web tokens
    ("hooks.slack.com/services/", 20),
];
const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &[u8] = b"-----END ";
/// The longest private key that is seen whole.
pub const MAX_PEM_BYTES: usize = 8 * 1024;
const MAX_PEM_LABEL: usize = 48;
/// The longest token that is seen whole.
const MAX_TOKEN: usize = 4096;
/// Names that a secret is assigned to.
const ASSIGNED: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "api_key",
    "apikey",
    "api-key",
    "api key",
    "access_key",
    "secret_key",
    "private_key",
    "auth_token",
    "access_token",
    "client_secret",
    "bearer",
];
const MIN_ASSIGNED: usize = 6;
/// After `Bearer `, which is also a word.
const MIN_BEARER: usize = 20;
const MAX_ASSIGNED: usize = 256;

static ANCHORS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let prefixes = PREFIXES.iter().map(|(prefix, _)| *prefix);
    AhoCorasick::new(prefixes.chain([PEM_BEGIN])).expect("fixed words")
});
static NAMES: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(ASSIGNED)
        .expect("fixed words")
});

pub fn find(text: &str, found: &mut Vec<Span>) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for anchor in ANCHORS.find_overlapping_iter(text) {
        let start = anchor.start();
        if start < done {
            continue;
        }
        let end = match PREFIXES.get(anchor.pattern().as_usize()) {
            Some((_, least)) => token(bytes, start, anchor.end(), *least),
            None => pem(bytes, start, anchor.end()),
        };
        if let Some(end) = end {
            found.push(Span {
                start,
                end,
                kind: Kind::Secret,
            });
            done = end;
        }
    }
    for name in NAMES.find_iter(text) {
        let bearer = ASSIGNED[name.pattern().as_usize()] == "bearer";
        if let Some((start, end)) = assigned(bytes, name.end(), bearer) {
            found.push(Span {
                start,
                end,
                kind: Kind::Secret,
            });
        }
    }
}

/// The end of the token that begins so.
fn token(text: &[u8], start: usize, begin: usize, least: usize) -> Option<usize> {
    if start > 0 && is_word(text[start - 1]) {
        return None;
    }
    let mut end = begin;
    let highest = text.len().min(begin + MAX_TOKEN);
    while end < highest && is_token(text[end]) {
        end += 1;
    }
    while end > begin && b".-/".contains(&text[end - 1]) {
        end -= 1;
    }
    let body = &text[begin..end];
    let varied = body.iter().any(u8::is_ascii_digit) || body.iter().any(u8::is_ascii_uppercase);
    let web_token = &text[start..begin] != b"eyJ" || memchr::memchr_iter(b'.', body).count() >= 2;
    (body.len() >= least && varied && web_token).then_some(end)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-./".contains(&byte)
}

/// The end of the private key that begins so, or of what there is of it.
fn pem(text: &[u8], start: usize, begin: usize) -> Option<usize> {
    let label = &text[begin..text.len().min(begin + MAX_PEM_LABEL)];
    let label = &label[..memchr::memmem::find(label, b"-----")?];
    memchr::memmem::find(label, b"PRIVATE KEY")?;
    let body = begin + label.len() + 5;
    let highest = text.len().min(start + MAX_PEM_BYTES);
    let Some(close) = memchr::memmem::find(&text[body..highest], PEM_END) else {
        let is_body = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\r\n \\-:,".contains(byte);
        return Some(
            body + text[body..highest]
                .iter()
                .take_while(|byte| is_body(byte))
                .count(),
        );
    };
    let tail = body + close + PEM_END.len();
    let rest = &text[tail..text.len().min(tail + MAX_PEM_LABEL)];
    Some(memchr::memmem::find(rest, b"-----").map_or(tail, |dashes| tail + dashes + 5))
}

/// The value behind `= `, `: ` or `is `, where it looks like a secret and not like a word.
fn assigned(text: &[u8], at: usize, bearer: bool) -> Option<(usize, usize)> {
    let mut start = at;
    let skip = |start: &mut usize, signs: &[u8], most: usize| {
        let from = *start;
        while *start < text.len() && *start - from < most && signs.contains(&text[*start]) {
            *start += 1;
        }
        *start - from
    };
    skip(&mut start, b"\"'` ", 3);
    let signs = skip(&mut start, b"=:", 2);
    let said = signs == 0 && text[start..].starts_with(b"is ");
    if said {
        start += 2;
    }
    if signs == 0 && !said && !bearer {
        return None;
    }
    skip(&mut start, b"\"'` ", 3);
    let highest = text.len().min(start + MAX_ASSIGNED);
    let mut end = start;
    while end < highest
        && !text[end].is_ascii_whitespace()
        && !b"\"'`,;<>(){}[]".contains(&text[end])
    {
        end += 1;
    }
    while end > start && b".!?:".contains(&text[end - 1]) {
        end -= 1;
    }
    let value = &text[start..end];
    let kinds = [
        u8::is_ascii_digit,
        u8::is_ascii_uppercase,
        u8::is_ascii_lowercase,
    ];
    let mixed = kinds.iter().filter(|kind| value.iter().any(kind)).count() >= 2;
    let named =
        value.starts_with(b"$") || value.starts_with(b"os.") || value.starts_with(b"process.");
    let digit = value.iter().any(u8::is_ascii_digit);
    let least = if bearer { MIN_BEARER } else { MIN_ASSIGNED };
    (value.len() >= least && mixed && digit && !named && value.is_ascii()).then_some((start, end))
}
