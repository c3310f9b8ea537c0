//! The bytes of a segment: one header block, then frames.
//!
//! All numbers are little-endian.
//!
//! ```text
//! segment header, in a block of 4096 bytes (the rest is zeros)
//!   0 magic "cascjrnl"   8 version u16   10 schema u16   12 zero u32   16 index u64
//!  24 incarnation u64   32 first sequence u64   40 host [16]   56 segment bytes u64   64 CRC32C
//!
//! frame, aligned to 8 bytes
//!   0 CRC32C of all that follows, padding included     4 payload length u32
//!   8 sequence u64                                    16 incarnation u64
//!  24 unflushed u32: how many records, this one included, were not durable when it was written
//!  28 type u8    29 flags u8 (1 = last of its batch)   30 zero u16    32 payload, zeros to 8
//! ```
//!
//! `sequence - unflushed` is a promise: every record up to there was durable when this frame was
//! written. It tells a torn last batch (nothing behind it was promised) from a damaged record that
//! had been acknowledged (a frame behind it promises it).

use crate::Seq;

/// Bytes before the first frame, so that a header shares no page with records.
pub(crate) const SEGMENT_HEADER: usize = 4096;
/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER: usize = 32;
/// Frames start at multiples of this.
pub(crate) const ALIGN: usize = 8;
/// The format this build writes, and the newest it reads.
pub const FORMAT_VERSION: u16 = 1;
/// The longest payload the format allows.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"cascjrnl";
const HEADER_USED: usize = 64;
const LAST_OF_BATCH: u8 = 1;
const CRC_BYTES: usize = 4;

/// A type tag that only the journal writes: it closes a clean shutdown and carries nothing.
pub(crate) const CLOSE_TAG: u8 = 0;

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u16,
    pub(crate) schema: u16,
    pub(crate) index: u64,
    pub(crate) incarnation: u64,
    pub(crate) first_seq: Seq,
    pub(crate) host: [u8; 16],
    pub(crate) segment_bytes: u64,
}

/// What the first block of a segment file holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderRead {
    Valid(SegmentHeader),
    /// Ours by its magic, but of a format this build cannot check.
    Newer(u16),
    /// Never written, or unreadable.
    Invalid,
}

impl SegmentHeader {
    /// The header as a whole block.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(SEGMENT_HEADER);
        block.extend_from_slice(MAGIC);
        block.extend_from_slice(&self.version.to_le_bytes());
        block.extend_from_slice(&self.schema.to_le_bytes());
        block.extend_from_slice(&[0; 4]);
        for number in [self.index, self.incarnation, self.first_seq] {
            block.extend_from_slice(&number.to_le_bytes());
        }
        block.extend_from_slice(&self.host);
        block.extend_from_slice(&self.segment_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&block);
        block.extend_from_slice(&crc.to_le_bytes());
        block.resize(SEGMENT_HEADER, 0);
        block
    }

    /// Reads the first block of a segment, which may be short.
    pub(crate) fn decode(block: &[u8]) -> HeaderRead {
        if block.len() < SEGMENT_HEADER || &block[..MAGIC.len()] != MAGIC {
            return HeaderRead::Invalid;
        }
        let version = u16_at(block, 8);
        if crc32c::crc32c(&block[..HEADER_USED]) != u32_at(block, HEADER_USED) {
            let newer = version > FORMAT_VERSION;
            return if newer {
                HeaderRead::Newer(version)
            } else {
                HeaderRead::Invalid
            };
        }
        if version > FORMAT_VERSION {
            return HeaderRead::Newer(version);
        }
        let mut host = [0; 16];
        host.copy_from_slice(&block[40..56]);
        HeaderRead::Valid(Self {
            version,
            schema: u16_at(block, 10),
            index: u64_at(block, 16),
            incarnation: u64_at(block, 24),
            first_seq: u64_at(block, 32),
            host,
            segment_bytes: u64_at(block, 56),
        })
    }
}

/// A frame that was read and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) seq: Seq,
    pub(crate) incarnation: u64,
    pub(crate) unflushed: u32,
    pub(crate) tag: u8,
    pub(crate) last_of_batch: bool,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the frame at an offset; `None` if there is no whole, correct one.
    pub(crate) fn decode(segment: &'a [u8], offset: usize) -> Option<Self> {
        let header = segment.get(offset..offset.checked_add(FRAME_HEADER)?)?;
        let length = u32_at(header, 4) as usize;
        let plausible = header[29] <= LAST_OF_BATCH && u16_at(header, 30) == 0;
        if length > PAYLOAD_BYTES_MAX || !plausible {
            return None;
        }
        let frame = segment.get(offset..offset + frame_bytes(length))?;
        if frame_crc(frame) != u32_at(frame, 0) {
            return None;
        }
        Some(Self {
            seq: u64_at(frame, 8),
            incarnation: u64_at(frame, 16),
            unflushed: u32_at(frame, 24),
            tag: frame[28],
            last_of_batch: frame[29] & LAST_OF_BATCH != 0,
            payload: &frame[FRAME_HEADER..FRAME_HEADER + length],
        })
    }

    /// The sequence up to which everything was durable when this frame was written.
    pub(crate) fn promise(&self) -> Seq {
        self.seq.saturating_sub(u64::from(self.unflushed))
    }

    /// Bytes from the start of this frame to the next.
    pub(crate) fn bytes(&self) -> usize {
        frame_bytes(self.payload.len())
    }
}

/// The sequence field of whatever is at an offset, to pass over most of it without a checksum.
pub(crate) fn peek_seq(segment: &[u8], offset: usize) -> Option<Seq> {
    let field = segment.get(offset.checked_add(8)?..offset.checked_add(16)?)?;
    Some(u64_at(field, 0))
}

/// Bytes of a frame with a payload of this length.
pub(crate) fn frame_bytes(payload: usize) -> usize {
    (FRAME_HEADER + payload).next_multiple_of(ALIGN)
}

/// Appends a frame that waits for [`stamp`].
pub(crate) fn push_frame(queue: &mut Vec<u8>, seq: Seq, tag: u8, payload: &[u8]) {
    let start = queue.len();
    let length = u32::try_from(payload.len()).expect("payloads are at most PAYLOAD_BYTES_MAX");
    queue.extend_from_slice(&[0; CRC_BYTES]);
    queue.extend_from_slice(&length.to_le_bytes());
    queue.extend_from_slice(&seq.to_le_bytes());
    queue.extend_from_slice(&[0; 12]);
    queue.extend_from_slice(&[tag, 0, 0, 0]);
    queue.extend_from_slice(payload);
    queue.resize(start + frame_bytes(payload.len()), 0);
}

/// Completes the frames of one batch: incarnation, promise, end mark and checksum.
///
/// Returns how many there are. `durable` is the last sequence that is durable already.
pub(crate) fn stamp(batch: &mut [u8], incarnation: u64, durable: Seq) -> u64 {
    let (mut offset, mut count) = (0, 0);
    while offset < batch.len() {
        let bytes = frame_bytes(u32_at(batch, offset + 4) as usize);
        let last = offset + bytes == batch.len();
        let frame = &mut batch[offset..offset + bytes];
        let unflushed = u64_at(frame, 8) - durable;
        let unflushed = u32::try_from(unflushed).expect("the queue is bounded far below 2^32");
        frame[16..24].copy_from_slice(&incarnation.to_le_bytes());
        frame[24..28].copy_from_slice(&unflushed.to_le_bytes());
        frame[29] = if last { LAST_OF_BATCH } else { 0 };
        let crc = frame_crc(frame);
        frame[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
        offset += bytes;
        count += 1;
    }
    count
}

/// The checksum of a frame: all but the checksum itself.
fn frame_crc(frame: &[u8]) -> u32 {
    #[cfg(test)]
    if crate::planted::is(crate::planted::Bug::ChecksumSkipsLength) {
        return crc32c::crc32c(&frame[8..]);
    }
    crc32c::crc32c(&frame[CRC_BYTES..])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::{self, Bug};
    use proptest::prelude::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            version: FORMAT_VERSION,
            schema: 3,
            index: 7,
            incarnation: 9,
            first_seq: 1001,
            host: *b"0123456789abcdef",
            segment_bytes: 1 << 24,
        }
    }

    fn batch(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (i, payload) in payloads.iter().enumerate() {
            push_frame(&mut bytes, 11 + i as u64, 5, payload);
        }
        assert_eq!(stamp(&mut bytes, 42, 10), payloads.len() as u64);
        bytes
    }

    fn flips_found(bytes: &[u8]) -> bool {
        let good = Frame::decode(bytes, 0).unwrap();
        (0..good.bytes() * 8).all(|bit| {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            Frame::decode(&bad, 0).is_none()
        })
    }

    #[test]
    fn a_header_reads_back_and_any_flipped_bit_in_it_is_seen() {
        let block = header().encode();
        assert_eq!(block.len(), SEGMENT_HEADER);
        assert_eq!(SegmentHeader::decode(&block), HeaderRead::Valid(header()));
        for bit in 0..(HEADER_USED + 4) * 8 {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !matches!(SegmentHeader::decode(&bad), HeaderRead::Valid(_)),
                "bit {bit}"
            );
        }
        assert_eq!(SegmentHeader::decode(&block[..100]), HeaderRead::Invalid);
        assert_eq!(
            SegmentHeader::decode(&[0; SEGMENT_HEADER]),
            HeaderRead::Invalid
        );
    }

    #[test]
    fn a_newer_format_is_named_even_if_its_checksum_is_elsewhere() {
        let newer = SegmentHeader {
            version: FORMAT_VERSION + 1,
            ..header()
        };
        let mut block = newer.encode();
        assert_eq!(
            SegmentHeader::decode(&block),
            HeaderRead::Newer(FORMAT_VERSION + 1)
        );
        block[HEADER_USED] ^= 1;
        assert_eq!(
            SegmentHeader::decode(&block),
            HeaderRead::Newer(FORMAT_VERSION + 1)
        );
    }

    #[test]
    fn a_length_beyond_the_file_or_the_format_is_no_frame() {
        let bytes = batch(&[vec![1; 10]]);
        assert!(Frame::decode(&bytes[..bytes.len() - 1], 0).is_none());
        assert!(Frame::decode(&bytes, bytes.len()).is_none());
        assert!(Frame::decode(&bytes, usize::MAX).is_none());
        let mut long = bytes.clone();
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Frame::decode(&long, 0).is_none());
        assert!(Frame::decode(&[0; 64], 0).is_none());
    }

    #[test]
    fn a_checksum_that_skips_the_length_is_caught() {
        let bytes = batch(&[vec![0; 13]]);
        assert!(flips_found(&bytes));
        let caught = planted::with(Bug::ChecksumSkipsLength, || {
            let bytes = batch(&[vec![0; 13]]);
            !flips_found(&bytes)
        });
        assert!(caught);
    }

    proptest! {
        #[test]
        fn batches_read_back(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)
        ) {
            let bytes = batch(&payloads);
            let mut offset = 0;
            for (i, payload) in payloads.iter().enumerate() {
                let frame = Frame::decode(&bytes, offset).unwrap();
                prop_assert_eq!(frame.payload, &payload[..]);
                prop_assert_eq!((frame.seq, frame.incarnation, frame.tag), (11 + i as u64, 42, 5));
                prop_assert_eq!(frame.promise(), 10);
                prop_assert_eq!(frame.last_of_batch, i + 1 == payloads.len());
                offset += frame.bytes();
            }
            prop_assert_eq!(offset, bytes.len());
        }

        #[test]
        fn any_flipped_bit_is_seen(payload in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(flips_found(&batch(&[payload])));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            offset in 0_usize..300,
        ) {
            prop_assert!(Frame::decode(&bytes, offset).is_none());
            SegmentHeader::decode(&bytes);
            peek_seq(&bytes, offset);
        }
    }
}
