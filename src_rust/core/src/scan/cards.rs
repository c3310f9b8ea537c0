//! Payment cards: which brands there are, how long their numbers are, and their check digit.

/// Whether the digits are a card's number.
pub fn is_card(digits: &[u8]) -> bool {
    is_of_a_brand(digits) && luhn(digits) && digits.iter().any(|digit| *digit != digits[0])
}

/// Whether brand and length go together.
fn is_of_a_brand(digits: &[u8]) -> bool {
    let count = digits.len();
    if !(12..=19).contains(&count) {
        return false;
    }
    let first = |places: usize| {
        let head = &digits[..places];
        head.iter()
            .fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'))
    };
    match (first(1), first(2), first(3), first(4)) {
        (4, ..) => matches!(count, 13 | 16 | 19),            // Visa
        (_, 51..=55, ..) | (.., 2221..=2720) => count == 16, // Mastercard
        (_, 34 | 37, ..) => count == 15,                     // American Express
        (_, 36, ..) => (14..=19).contains(&count),           // Diners
        (_, 38 | 39, ..) | (_, _, 300..=305, _) => matches!(count, 14 | 16), // Diners
        (.., 3500..=3589) => (16..=19).contains(&count),     // JCB
        (.., 1800 | 2131) => count == 15,                    // JCB
        (.., 2200..=2204) => (16..=19).contains(&count),     // Mir
        (_, 50 | 56..=58 | 60..=69, ..) => true,             // Maestro, Discover, UnionPay, RuPay
        (_, 81, ..) => count == 16,                          // RuPay
        (.., 9792) => count == 16,                           // Troy
        _ => false,
    }
}

/// The check digit of ISO/IEC 7812.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let value = u32::from(digit - b'0') * (1 + place as u32 % 2);
            value / 10 + value % 10
        })
        .sum();
    sum % 10 == 0
}
