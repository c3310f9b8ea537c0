//! What a text is about, by its words and its form: numbers for a head to weigh, and what the
//! operator's own keywords and patterns find.
//!
//! Everything is linear in the text, of which only the beginning is read.

mod forms;
#[cfg(test)]
mod tests;
mod words;

use std::collections::HashMap;
use std::fmt;

use regex::{RegexSet, RegexSetBuilder};

pub use forms::FORMS;
pub use words::DOMAINS;

/// Bytes of a text that are read.
pub const TEXT_BYTES_MAX: usize = 8 << 10;
/// Words and pairs of words share so many numbers.
pub const BUCKETS: usize = 1024;
/// Longest keyword, in words.
pub const KEYWORD_WORDS_MAX: usize = 8;
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// How many numbers [`features`] gives.
#[must_use]
pub fn feature_count() -> usize {
    FORMS.len() + DOMAINS.len() + BUCKETS
}

/// A text in numbers: its form, how strongly the words of each built-in domain speak, and which
/// words it has, hashed.
#[must_use]
pub fn features(text: &str) -> Vec<f32> {
    let text = head(text);
    let words = words::split(text);
    let mut found = Vec::with_capacity(feature_count());
    forms::append(text, &mut found);
    words::append_domains(&words, &mut found);
    words::append_hashes(&words, &mut found);
    found
}

/// Keywords and patterns of the operator's own domains.
pub struct Routes {
    keywords: HashMap<String, Vec<usize>>,
    longest: usize,
    patterns: RegexSet,
    owners: Vec<usize>,
}

/// What speaks for a domain of the operator's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hits {
    /// Different keywords in the text.
    pub keywords: usize,
    /// Different patterns that match.
    pub patterns: usize,
}

/// A keyword or pattern that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteError {
    /// Which domain's.
    pub route: usize,
    /// What it is, and what is wrong with it.
    pub problem: String,
}

impl fmt::Display for RouteError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.problem)
    }
}

impl std::error::Error for RouteError {}

impl Routes {
    /// From `(keywords, patterns)` of each domain. Case does not matter.
    ///
    /// # Errors
    /// The first keyword without a letter or with too many words, or pattern that is none.
    pub fn new(routes: &[(Vec<String>, Vec<String>)]) -> Result<Self, RouteError> {
        let mut keywords: HashMap<String, Vec<usize>> = HashMap::new();
        let (mut sources, mut owners, mut longest) = (Vec::new(), Vec::new(), 0);
        for (route, (own, patterns)) in routes.iter().enumerate() {
            for keyword in own {
                let parts = words::split(keyword);
                if parts.is_empty() || parts.len() > KEYWORD_WORDS_MAX {
                    let problem = format!(
                        "the keyword {keyword:?} has {} words: 1 to {KEYWORD_WORDS_MAX} will do",
                        parts.len()
                    );
                    return Err(RouteError { route, problem });
                }
                longest = longest.max(parts.len());
                let places = keywords.entry(parts.join(" ")).or_default();
                if !places.contains(&route) {
                    places.push(route);
                }
            }
            for pattern in patterns {
                set(std::slice::from_ref(pattern)).map_err(|error| RouteError {
                    route,
                    problem: format!("the pattern {pattern:?} cannot be used: {error}"),
                })?;
                sources.push(pattern.clone());
                owners.push(route);
            }
        }
        let patterns = set(&sources).map_err(|error| RouteError {
            route: 0,
            problem: format!("the patterns together are too large: {error}"),
        })?;
        Ok(Self {
            keywords,
            longest,
            patterns,
            owners,
        })
    }

    /// What is found in a text: `(domain, hits)`, where there are any.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<(usize, Hits)> {
        let text = head(text);
        let mut found: HashMap<usize, Hits> = HashMap::new();
        let mut seen: HashMap<&str, ()> = HashMap::new();
        let words = words::split(text);
        for size in 1..=self.longest {
            for part in words.windows(size) {
                let phrase = part.join(" ");
                if let Some((keyword, routes)) = self.keywords.get_key_value(&phrase) {
                    if seen.insert(keyword, ()).is_none() {
                        for route in routes {
                            found.entry(*route).or_default().keywords += 1;
                        }
                    }
                }
            }
        }
        for pattern in self.patterns.matches(text) {
            found.entry(self.owners[pattern]).or_default().patterns += 1;
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_unstable_by_key(|(route, _)| *route);
        found
    }
}

fn set(patterns: &[String]) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(patterns)
        .case_insensitive(true)
        .multi_line(true)
        .size_limit(PATTERN_BYTES_MAX)
        .build()
}

/// As much of a text as is read.
fn head(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
