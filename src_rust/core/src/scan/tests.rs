//! What is found, what is not, and that streams and whole texts agree.

use proptest::prelude::*;

use super::{tail_start, Kind, Kinds, Span, MAX_TAIL_BYTES};

fn find(text: &str) -> Vec<Span> {
    super::find(text, Kinds::ALL)
}

fn kinds(text: &str) -> Vec<(Kind, &str)> {
    find(text)
        .into_iter()
        .map(|span| (span.kind, &text[span.start..span.end]))
        .collect()
}

#[track_caller]
fn only(text: &str, kind: Kind, piece: &str) {
    assert_eq!(kinds(text), [(kind, piece)], "{text}");
}

#[track_caller]
fn nothing(text: &str) {
    assert_eq!(kinds(text), [], "{text}");
}

#[test]
fn emails_are_found() {
    only(
        "Write to bob.o-neil+x@mail.example.co.uk.",
        Kind::Email,
        "bob.o-neil+x@mail.example.co.uk",
    );
    only("<a_b@c-d.io>", Kind::Email, "a_b@c-d.io");
    nothing("meet @ 5.30, user@localhost, a@b, @name, x@1.2");
}

#[test]
fn cards_are_found_by_their_check_digit_and_brand() {
    only(
        "card 4111 1111 1111 1111, thanks",
        Kind::Card,
        "4111 1111 1111 1111",
    );
    only("347415977307943", Kind::Card, "347415977307943");
    only("my 3782-822463-10005!", Kind::Card, "3782-822463-10005");
    only("4735615260219382870", Kind::Card, "4735615260219382870");
    nothing("4111111111111112 and 1111111111111117 and 0000000000000000");
    nothing("pi is 3.4111111111111111");
    nothing("id 9f4111111111111111ab");
}

#[test]
fn social_security_numbers_are_found() {
    only("SSN: 460-89-9847", Kind::Ssn, "460-89-9847");
    only("student SSN 117 44 7426, due", Kind::Ssn, "117 44 7426");
    only("social security number 460899847", Kind::Ssn, "460899847");
    nothing("000-12-3456, 666-12-3456, 460-00-1234, 460-89-0000, part 12-460-89-9847");
    nothing("460 89 9847");
}

#[test]
fn telephone_numbers_are_found_by_form_or_words() {
    only("(555) 123-4567", Kind::Phone, "(555) 123-4567");
    only("reach me at +49 30 901820", Kind::Phone, "+49 30 901820");
    only("ring 024 971 50 30 today", Kind::Phone, "024 971 50 30");
    only(
        "his office is 07700 900123 now",
        Kind::Phone,
        "07700 900123",
    );
    only("024 971 50 30", Kind::Phone, "024 971 50 30");
    nothing("at 09:30 05-06 007 42");
    only("905-674-3793x123", Kind::Phone, "905-674-3793x123");
    only("my registered 668 5702. Could", Kind::Phone, "668 5702");
    nothing("2024-01-31 12 and 31.01.2024 and 1990-2000");
    nothing("order 12345678, $1,234,567.89, 1234567890123");
}

#[test]
fn addresses_of_both_protocols_are_found() {
    only("|106.31.73.20|", Kind::Ip, "106.31.73.20");
    only(
        "from 2001:db8::ff00:42:8329.",
        Kind::Ip,
        "2001:db8::ff00:42:8329",
    );
    assert_eq!(kinds("10.0.0.1 10.0.0.2").len(), 2);
    nothing("version 1.2.3.4, 1.2.3.4.5, 256.1.1.1, 12:30:45, std::vec, ee:0b:62:33:8c:af");
}

#[test]
fn ibans_and_passports_are_found() {
    only(
        "GB82 WEST 1234 5698 7654 32.",
        Kind::Iban,
        "GB82 WEST 1234 5698 7654 32",
    );
    only(
        "gb50mvfc38361978683032",
        Kind::Iban,
        "gb50mvfc38361978683032",
    );
    nothing("GB83WEST12345698765432 XX82WEST12345698765432");
    only("passport no. X1234567", Kind::Passport, "X1234567");
}

#[test]
fn keys_are_found() {
    // Put together here, so that no scanner takes this file for a leak.
    let github = format!("ghp_{}", "a1B2".repeat(9));
    only(&format!("token {github}."), Kind::Secret, &github);
    let amazon = format!("AKIA{}", "ABCD2345".repeat(2));
    only(&amazon, Kind::Secret, &amazon);
    let web = format!("eyJ{0}.eyJ{0}.{0}", "aB3_".repeat(8));
    only(&format!("Bearer {web}"), Kind::Secret, &web);
    let pem = format!(
        "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
        "aB3+".repeat(16)
    );
    only(&format!("x {pem} y"), Kind::Secret, &pem);
    only("password = \"hunter2!x\"", Kind::Secret, "hunter2!x");
    nothing("the password is wrong, api_key = os.environ, sk-learn, secret: yes please");
}

#[test]
fn what_is_not_wanted_hides_nothing() {
    let text = "password: bob1@example.com";
    assert_eq!(kinds(text)[0].0, Kind::Secret);
    let found = super::find(text, Kinds::named(["email", "nonsense"]));
    assert_eq!(
        found.iter().map(|span| span.kind).collect::<Vec<_>>(),
        [Kind::Email]
    );
}

#[test]
fn hostile_sizes_are_linear() {
    for piece in [
        "@",
        "a@",
        "a@b.",
        "1 ",
        "1-",
        "1.1",
        "+1 (",
        "GB82 ",
        "::",
        "a:",
        "eyJ",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "password=",
        "4111 ",
        "4111111111111111",
        "sk-",
        "\u{200b}",
        "é1",
    ] {
        let text = piece.repeat(200_000 / piece.len());
        find(&text);
        tail_start(&text);
        let plain = super::plain(&text);
        super::injection::signs(&plain);
        super::linear::features(&plain);
    }
}

/// Finds in a stream: what is safe is judged, what is not waits.
fn in_pieces(text: &str, cuts: &[usize]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut judged = 0;
    for &cut in cuts.iter().chain([&text.len()]) {
        let seen = &text[..cut.max(judged)];
        let last = cut == text.len();
        let safe = if last { seen.len() } else { tail_start(seen) };
        for span in find(seen) {
            if span.start >= judged && span.end <= safe {
                found.push((span.start, span.end));
            }
        }
        judged = judged.max(safe);
    }
    found
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("4111 1111 1111 1111"),
        Just("4111111111111111"),
        Just("bob@example.com"),
        Just("460-89-9847"),
        Just("GB82 WEST 1234 5698 7654 32"),
        Just("gb50mvfc38361978683032"),
        Just("(555) 123-4567"),
        Just("call +49 30 901820"),
        Just("10.0.0.1"),
        Just("2001:db8::1"),
        Just("password: abc123xyz"),
        Just("SSN 117 44 7426"),
        Just("in 2024"),
        Just("é"),
        Just(" "),
        Just(", "),
        Just(". "),
        Just("\n"),
        Just("word"),
        Just("-"),
        Just("("),
        Just("12"),
        Just("x"),
        Just("passport X1234567"),
        Just("AKIAABCD2345ABCD2345"),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_stream_is_judged_as_the_whole(text in pieces(), seed in prop::collection::vec(0usize..400, 0..40)) {
        let mut cuts: Vec<usize> = seed.into_iter().filter(|cut| text.is_char_boundary(*cut) && *cut < text.len()).collect();
        cuts.sort_unstable();
        let whole: Vec<_> = find(&text).iter().map(|span| (span.start, span.end)).collect();
        prop_assert_eq!(in_pieces(&text, &cuts), whole);
    }

    #[test]
    fn anything_is_searched(text in "\\PC{0,400}") {
        for span in find(&text) {
            prop_assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end));
        }
        let tail = tail_start(&text);
        prop_assert!(text.is_char_boundary(tail) && text.len() - tail <= MAX_TAIL_BYTES);
        let plain = super::plain(&text);
        super::injection::signs(&plain);
    }
}
