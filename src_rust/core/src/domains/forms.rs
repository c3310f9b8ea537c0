//! Forms that tell what a text is, whatever its words: code, SQL, JSON, formulas, codes of
//! medicine, citations of law.

use std::sync::LazyLock;

use regex::RegexSet;

/// The patterns by their names; each is 1 where it is found, else 0. The last four numbers are
/// shares and sizes.
pub const FORMS: [&str; 18] = [
    "code_fence",
    "code_line",
    "sql",
    "json",
    "stack_trace",
    "medical_code",
    "dose",
    "formula",
    "latex",
    "citation",
    "money",
    "translate",
    "summarise",
    "choices",
    "code_share",
    "digit_share",
    "length",
    "questions",
];

const PATTERNS: [&str; 14] = [
    r"```",
    r"(?m)^\s*(def \w+\(|class \w+|import \w+|from \w+ import|#include|public (static |class )|func \w+\(|fn \w+|const \w+ =|let \w+ =|var \w+ =|function \w*\(|return\b.*;|[A-Za-z_][\w.]*\(.*\);)",
    r"(?i)\b(select\s.{1,400}\sfrom\s|insert\s+into\s|create\s+(table|index|view)\s|update\s+\w+\s+set\s|delete\s+from\s|alter\s+table\s)",
    r#"(?s)[\[{]\s*"[^"]{1,80}"\s*:\s*["\d\[{tfn-]"#,
    r"(Traceback \(most recent|Exception in thread|\bat [\w.$]+\([\w.]+:\d+\)|[A-Z]\w+(Error|Exception):|panicked at|segmentation fault)",
    r"\b([A-TV-Z]\d[0-9A-Z]\.\d{1,4}|ICD-?10|CPT|SNOMED|LOINC)\b",
    r"(?i)\b\d+(\.\d+)?\s?(mg|mcg|µg|mmhg|mmol|iu|bpm)\b",
    r"(\d\s*[-+*/^×÷=]\s*\(?\d|[a-z]\s?=\s?\d|[a-z]\^\d|\bf\(x\)|[∫∑√≤≥≠π∞∈])",
    r"(\\(frac|int|sum|sqrt|begin|left|cdot|mathbb)\b|\$[^$\n]{1,80}\$)",
    r"(§\s?\d|\bU\.?S\.?C\.|\b[A-Z]\w+ v\. [A-Z]|\bArt(icle|\.) \d+|\bF\.(2d|3d|Supp))",
    r"([$€£¥₹]\s?\d|\b\d+(\.\d+)?\s?(usd|eur|dollars|euros|bucks)\b)",
    r"(?i)\b(translate|translation|say)\b.{0,400}\b(to|into|in)\s+(english|spanish|french|german|italian|portuguese|chinese|mandarin|japanese|korean|russian|arabic|hindi|dutch|polish|turkish|swedish|greek|latin|thai|vietnamese|hebrew)\b",
    r"(?i)\b(summari[sz]e|summari[sz]ation|summary|tl;?dr|key (points|takeaways)|main points|condense)\b",
    r"(?m)^\s*\(?[A-D][.)]\s",
];

static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(PATTERNS).unwrap_or_else(|error| panic!("a pattern of ours: {error}"))
});

const CODE: &str = "{}()[];=<>_/\\|&*";
const LONG: f32 = 8.0;

/// The numbers of [`FORMS`].
pub(super) fn append(text: &str, to: &mut Vec<f32>) {
    let found = SET.matches(text);
    to.extend((0..PATTERNS.len()).map(|place| f32::from(u8::from(found.matched(place)))));
    let total = text.chars().count().max(1) as f32;
    let share = |test: fn(char) -> bool| text.chars().filter(|each| test(*each)).count() as f32;
    to.push((share(|each| CODE.contains(each)) / total * 5.0).min(1.0));
    to.push((share(|each| each.is_ascii_digit()) / total * 5.0).min(1.0));
    to.push(total.ln() / LONG);
    to.push((share(|each| each == '?') / 3.0).min(1.0));
}
