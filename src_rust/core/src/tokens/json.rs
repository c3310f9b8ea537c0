//! Just enough JSON to walk a prompt without building it: values stay the slices they are.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::TokenError;

/// Most bytes of messages, and of tools.
pub const JSON_BYTES_MAX: usize = 32 << 20;
/// Deepest nesting; JSON schemas of tools are the deepest that is met.
pub const JSON_DEPTH_MAX: usize = 96;

/// A value, as text.
pub(super) type Value<'j> = &'j RawValue;

/// JSON within the limits, and how many strings (keys too) it holds.
pub(super) fn checked(bytes: &[u8]) -> Result<(Value<'_>, usize), TokenError> {
    if bytes.len() > JSON_BYTES_MAX {
        return Err(TokenError::TooLarge {
            bytes: bytes.len(),
            max: JSON_BYTES_MAX,
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| TokenError::NotUtf8 {
        offset: error.valid_up_to(),
    })?;
    let strings = survey(bytes)?;
    let value = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    Ok((value, strings))
}

/// Counts strings and checks the depth in one pass. Broken JSON passes: the parser reports it.
fn survey(bytes: &[u8]) -> Result<usize, TokenError> {
    let (mut depth, mut strings) = (0_usize, 0);
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => {
                strings += 1;
                at += string_bytes(&bytes[at..]);
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return Err(TokenError::TooDeep {
                max: JSON_DEPTH_MAX,
            });
        }
    }
    Ok(strings)
}

/// Bytes up to and with the closing quote.
fn string_bytes(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = rest.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    rest.len()
}

fn not_json(error: &serde_json::Error) -> TokenError {
    TokenError::Json(error.to_string())
}

/// JSON with its `\uXXXX` as the characters they mean, or `None` if it has none.
pub(super) fn characters_read(text: &str) -> Option<String> {
    const HEX_DIGITS: usize = 4;
    let (before, escapes) = text.split_once("\\u")?;
    let mut read = String::with_capacity(text.len());
    read.push_str(before);
    let mut units = Vec::new();
    for escape in escapes.split("\\u") {
        let rest = match escape
            .get(..HEX_DIGITS)
            .map(|hex| u16::from_str_radix(hex, 16))
        {
            Some(Ok(unit)) => {
                units.push(unit);
                &escape[HEX_DIGITS..]
            }
            _ => escape,
        };
        // Two escapes may be one character; text between them ends it.
        if !rest.is_empty() {
            read.extend(characters(&units));
            units.clear();
            read.push_str(rest);
        }
    }
    read.extend(characters(&units));
    Some(read)
}

fn characters(units: &[u16]) -> impl Iterator<Item = char> + '_ {
    char::decode_utf16(units.iter().copied())
        .map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// The first character, which tells a value's kind.
fn kind(value: Value<'_>) -> u8 {
    value.get().as_bytes().first().copied().unwrap_or(b'n')
}

pub(super) fn is_null(value: Value<'_>) -> bool {
    kind(value) == b'n'
}

pub(super) fn is_string(value: Value<'_>) -> bool {
    kind(value) == b'"'
}

pub(super) fn is_array(value: Value<'_>) -> bool {
    kind(value) == b'['
}

pub(super) fn is_object(value: Value<'_>) -> bool {
    kind(value) == b'{'
}

/// Runs `read` on a string without its escapes.
///
/// Fails on escapes that are no text (a lone `\ud800`).
pub(super) fn with_string<T>(
    value: Value<'_>,
    read: impl FnOnce(&str) -> T,
) -> Result<T, TokenError> {
    serde_json::Deserializer::from_str(value.get())
        .deserialize_str(StringReader(read))
        .map_err(|error| not_json(&error))
}

struct StringReader<F>(F);

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for StringReader<F> {
    type Value = T;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}

/// Runs `each` on the elements of an array, in order, until it fails.
pub(super) fn for_each<'j>(
    array: Value<'j>,
    each: impl FnMut(Value<'j>) -> Result<(), TokenError>,
) -> Result<(), TokenError> {
    serde_json::Deserializer::from_str(array.get())
        .deserialize_seq(ArrayReader(each))
        .map_err(|error| not_json(&error))?
}

struct ArrayReader<F>(F);

impl<'j, F: FnMut(Value<'j>) -> Result<(), TokenError>> Visitor<'j> for ArrayReader<F> {
    type Value = Result<(), TokenError>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'j>>(mut self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut found = Ok(());
        while let Some(value) = array.next_element::<Value<'j>>()? {
            if found.is_ok() {
                found = (self.0)(value);
            }
        }
        Ok(found)
    }
}

/// Runs `each` on the members of an object, in order, until it fails. Keys come without escapes.
pub(super) fn for_each_member<'j>(
    object: Value<'j>,
    each: impl FnMut(&str, Value<'j>) -> Result<(), TokenError>,
) -> Result<(), TokenError> {
    serde_json::Deserializer::from_str(object.get())
        .deserialize_map(ObjectReader(each))
        .map_err(|error| not_json(&error))?
}

struct ObjectReader<F>(F);

impl<'j, F: FnMut(&str, Value<'j>) -> Result<(), TokenError>> Visitor<'j> for ObjectReader<F> {
    type Value = Result<(), TokenError>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'j>>(mut self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = Ok(());
        while let Some(key) = object.next_key::<String>()? {
            let value = object.next_value::<Value<'j>>()?;
            if found.is_ok() {
                found = (self.0)(&key, value);
            }
        }
        Ok(found)
    }
}
