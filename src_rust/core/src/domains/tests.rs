use proptest::prelude::*;

use super::*;

fn value(text: &str, form: &str) -> f32 {
    let place = FORMS.iter().position(|name| *name == form).expect("a form");
    features(text)[place]
}

fn strongest(text: &str) -> &'static str {
    let all = features(text);
    let own = &all[FORMS.len()..FORMS.len() + DOMAINS.len()];
    let best = own
        .iter()
        .enumerate()
        .max_by(|one, other| one.1.total_cmp(other.1))
        .expect("domains");
    DOMAINS[best.0]
}

#[test]
fn forms_are_seen() {
    for (form, text) in [
        ("code_fence", "look:\n```\nx\n```"),
        ("code_line", "def add(a, b):\n    return a + b"),
        ("code_line", "total.add(x);"),
        ("sql", "SELECT name FROM users WHERE id = 3"),
        ("json", "{\"name\": \"x\", \"n\": 3}"),
        ("stack_trace", "ValueError: no"),
        ("medical_code", "coded E11.9 today"),
        ("dose", "take 500 mg twice"),
        ("formula", "what is 12 * 13"),
        ("latex", "\\frac{1}{2}"),
        ("citation", "18 U.S.C. 1030"),
        ("money", "I paid $5"),
        ("translate", "translate 'good day' into French"),
        ("summarise", "Summarise this for me"),
        ("choices", "Which?\nA. one\nB. two"),
    ] {
        assert_eq!(value(text, form), 1.0, "{form} in {text:?}");
        assert_eq!(value("the cat sat on the mat", form), 0.0, "{form}");
    }
}

#[test]
fn words_speak_for_their_domains_whatever_their_case() {
    assert_eq!(strongest("The PATIENT has a fever and a rash"), "medical");
    assert_eq!(strongest("Can my landlord evict a tenant?"), "legal");
    assert_eq!(strongest("book a flight and a hotel"), "travel");
    assert_eq!(strongest("a C++ compiler bug"), "code");
}

#[test]
fn words_are_whole() {
    let all = features("the flaws of lawns");
    let legal = DOMAINS
        .iter()
        .position(|name| *name == "legal")
        .expect("it is there");
    assert_eq!(all[FORMS.len() + legal], 0.0);
}

#[test]
fn routes_find_keywords_and_patterns() {
    let routes = Routes::new(&[
        (vec!["purchase order".into(), "SKU".into()], vec![]),
        (vec!["Übergabe".into()], vec![r"\bTICKET-\d+".into()]),
    ])
    .expect("they are sound");
    assert_eq!(routes.find("nothing here"), []);
    let found = routes.find("A Purchase   order for sku 5, sku 6, ticket-12; ÜBERGABE");
    assert_eq!(
        found[0],
        (
            0,
            Hits {
                keywords: 2,
                patterns: 0
            }
        )
    );
    assert_eq!(
        found[1],
        (
            1,
            Hits {
                keywords: 1,
                patterns: 1
            }
        )
    );
    assert_eq!(routes.find("skus"), []);
}

#[test]
fn routes_that_cannot_be_used_are_told() {
    let one = |keyword: &str, pattern: &str| {
        let own = |text: &str| {
            if text.is_empty() {
                vec![]
            } else {
                vec![text.to_owned()]
            }
        };
        Routes::new(&[(vec![], vec![]), (own(keyword), own(pattern))])
    };
    assert_eq!(one("...", "").err().map(|error| error.route), Some(1));
    assert!(one("a b c d e f g h i", "").is_err());
    assert!(one("", "(").is_err());
    assert!(one("", r"(\w{900}){900}").is_err());
    assert!(one("", "a+").is_ok());
}

proptest! {
    #[test]
    fn any_text_has_numbers(text in any::<String>()) {
        let found = features(&text);
        prop_assert_eq!(found.len(), feature_count());
        prop_assert!(found.iter().all(|number| number.is_finite()));
    }
}

#[test]
fn long_and_hostile_texts_are_cut() {
    for text in [
        "a ".repeat(1 << 20),
        "select ".repeat(100_000),
        "é".repeat(TEXT_BYTES_MAX),
        "{\"".repeat(50_000),
    ] {
        assert_eq!(features(&text).len(), feature_count());
    }
}
