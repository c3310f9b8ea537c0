//! Values as bytes: small numbers short, everything bounded, nothing trusted.

use std::fmt;
use std::sync::Arc;

use super::scope::ScopeKind;
use super::slab::Handle;
use crate::limiter::Method;
use crate::window::{Bounds, Stamp, WindowKind};

/// The longest name of a scope or zone, in bytes.
pub const MAX_NAME_BYTES: usize = 512;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They end too early.
    Short,
    /// There are more than the value needs.
    Trailing,
    /// A part is out of range; which.
    Malformed(&'static str),
    /// A newer version wrote them.
    Version(u8),
    /// No record type of this version has that tag.
    UnknownTag(u8),
    /// A record type of that tag is planned and this version does not know it.
    ReservedTag(u8),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "the record is cut off"),
            Self::Trailing => write!(f, "the record has bytes left over"),
            Self::Malformed(what) => write!(f, "the record has a malformed {what}"),
            Self::Version(version) => {
                write!(
                    f,
                    "the record is of version {version}: a newer release wrote it"
                )
            }
            Self::UnknownTag(tag) => {
                write!(f, "unknown record type {tag}: a newer release wrote it")
            }
            Self::ReservedTag(tag) => {
                write!(f, "record type {tag} is reserved: a newer release wrote it")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// Bytes that are being read, and the version that wrote them.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    version: u8,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            version: u8::MAX,
        }
    }

    /// The version in front of everything else, which decides how the rest is read.
    pub(crate) fn read_version(&mut self, newest: u8) -> Result<(), DecodeError> {
        self.version = u8::get(self)?;
        if !(1..=newest).contains(&self.version) {
            return Err(DecodeError::Version(self.version));
        }
        Ok(())
    }

    /// So many bytes of text, after their number.
    pub(crate) fn text(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        let length = usize::try_from(u64::get(self)?).unwrap_or(usize::MAX);
        if length > max {
            return Err(DecodeError::Malformed("name"));
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::Malformed("name"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn finish<T>(self, value: T) -> Result<T, DecodeError> {
        if self.bytes.is_empty() {
            Ok(value)
        } else {
            Err(DecodeError::Trailing)
        }
    }
}

/// A value that can be written as bytes and read back.
pub(crate) trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// Seven bits a byte, lowest first; the top bit says that more follow.
impl Wire for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        let mut rest = *self;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = u8::get(from)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed("number"))
    }
}

/// Zigzag, so that small negative numbers are short too.
impl Wire for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        (((self << 1) ^ (self >> 63)) as u64).put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let zigzag = u64::get(from)?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }
}

impl Wire for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [byte] = <[u8; 1]>::get(from)?;
        Ok(byte)
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.take(N)?.try_into().map_err(|_| DecodeError::Short)
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Malformed("flag")),
        }
    }
}

macro_rules! narrow {
    ($($number:ty),*) => {$(
        impl Wire for $number {
            fn put(&self, out: &mut Vec<u8>) {
                u64::from(*self).put(out);
            }

            fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Self::try_from(u64::get(from)?).map_err(|_| DecodeError::Malformed("number"))
            }
        }
    )*};
}
narrow!(u16, u32);

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        bool::get(from)?.then(|| T::get(from)).transpose()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        self.iter().for_each(|item| item.put(out));
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = u64::get(from)?;
        // Everything takes at least a byte, so a count beyond the bytes left is a lie.
        if count > from.bytes.len() as u64 {
            return Err(DecodeError::Short);
        }
        (0..count).map(|_| T::get(from)).collect()
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::get(from)?, B::get(from)?))
    }
}

impl Wire for Arc<str> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.text(MAX_NAME_BYTES).map(Self::from)
    }
}

/// A part that versions before `V` did not write; there it is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Since<const V: u8, T>(pub T);

impl<const V: u8, T: Wire + Default> Wire for Since<V, T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if from.version < V {
            return Ok(Self::default());
        }
        T::get(from).map(Self)
    }
}

/// Writes a struct as its fields, in the order given.
macro_rules! wire_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::ledger::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::ledger::codec::Wire::put(&self.$field, out);)*
            }

            fn get(
                from: &mut $crate::ledger::codec::Reader<'_>,
            ) -> Result<Self, $crate::ledger::codec::DecodeError> {
                Ok(Self { $($field: $crate::ledger::codec::Wire::get(from)?),* })
            }
        }
    };
}
pub(crate) use wire_struct;

/// Writes an enum without fields as its code.
macro_rules! wire_code {
    ($name:ident, $word:literal) => {
        impl $crate::ledger::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(*self as u8);
            }

            fn get(
                from: &mut $crate::ledger::codec::Reader<'_>,
            ) -> Result<Self, $crate::ledger::codec::DecodeError> {
                let code = u8::get(from)?;
                Self::from_code(code).ok_or($crate::ledger::codec::DecodeError::Malformed($word))
            }
        }
    };
}
pub(crate) use wire_code;

wire_code!(WindowKind, "window");
wire_code!(Method, "method");
wire_code!(ScopeKind, "scope");
wire_struct!(Handle { index, generation });
wire_struct!(Bounds { start_ns, end_ns });
wire_struct!(Stamp {
    calendar_ns,
    elapsed_ns
});

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: Wire + PartialEq + std::fmt::Debug>(value: T) {
        let mut bytes = Vec::new();
        value.put(&mut bytes);
        let mut reader = Reader::new(&bytes);
        let back = T::get(&mut reader).and_then(|back| reader.finish(back));
        assert_eq!(back.as_ref(), Ok(&value));
        for cut in 0..bytes.len() {
            assert!(
                T::get(&mut Reader::new(&bytes[..cut])).is_err(),
                "{value:?} cut at {cut}"
            );
        }
    }

    #[test]
    fn values_come_back() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            round_trip(number);
        }
        for number in [0, -1, 1, -64, 64, i64::MAX, i64::MIN] {
            round_trip(number);
        }
        round_trip(Arc::<str>::from("größe"));
        round_trip(vec![Some(7_u16), None]);
        round_trip([true, false].to_vec());
    }

    fn refused<T: Wire + std::fmt::Debug>(bytes: &[u8]) -> DecodeError {
        T::get(&mut Reader::new(bytes)).expect_err("malformed")
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(
            refused::<u64>(&[0xff; 12]),
            DecodeError::Malformed("number")
        );
        assert_eq!(
            refused::<u16>(&[0x80, 0x80, 0x04]),
            DecodeError::Malformed("number")
        );
        assert_eq!(refused::<bool>(&[2]), DecodeError::Malformed("flag"));
        assert_eq!(
            refused::<Vec<u64>>(&[0xff, 0xff, 0x7f, 0]),
            DecodeError::Short
        );
        assert_eq!(
            refused::<Arc<str>>(&[2, 0xff, 0xfe]),
            DecodeError::Malformed("name")
        );
        assert_eq!(
            refused::<Arc<str>>(&[0xff, 0x7f]),
            DecodeError::Malformed("name")
        );
        assert_eq!(
            refused::<WindowKind>(&[99]),
            DecodeError::Malformed("window")
        );
        assert_eq!(Reader::new(&[0]).finish(()), Err(DecodeError::Trailing));
    }
}
