//! Reading a folder of segments: what is there, what is whole, what was lost.
//!
//! Nothing here changes the disk. [`inspect`] decides; `recover` (in `log.rs`) applies.

use std::io;
use std::ops::{Range, RangeInclusive};

use crate::disk::{Disk, DiskFile};
use crate::error::{Damage, Evidence, OpenError};
use crate::frame::{
    peek_seq, Frame, HeaderRead, SegmentHeader, ALIGN, CLOSE_TAG, FORMAT_VERSION, FRAME_HEADER,
    SEGMENT_HEADER,
};
use crate::Seq;

const PREFIX: &str = "journal-";
/// A file that is still being prepared.
pub(crate) const HALF_MADE: &str = "spare.tmp";

/// The name of a segment file.
pub(crate) fn segment_name(index: u64) -> String {
    format!("{PREFIX}{index:016x}")
}

fn segment_index(name: &str) -> Option<u64> {
    let digits = name
        .strip_prefix(PREFIX)
        .filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Which record types and schemas are known.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) tags: [bool; 256],
    pub(crate) schema: u16,
}

/// A segment with records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    /// The last sequence of its last whole batch; `first_seq - 1` if there is none.
    pub(crate) last_seq: Seq,
    /// The offset of its last whole batch, and the one behind it.
    pub(crate) batch: Range<u64>,
    /// The file's length.
    pub(crate) bytes: u64,
    /// Bytes behind the last whole batch that are not blank.
    pub(crate) torn_bytes: u64,
}

impl Segment {
    pub(crate) fn name(&self) -> String {
        segment_name(self.header.index)
    }
}

/// What a folder holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// The segments to replay, in order.
    pub(crate) segments: Vec<Segment>,
    /// Segments wholly below the checkpoint.
    pub(crate) stale: Vec<u64>,
    /// Prepared files, all zeros, with their length.
    pub(crate) blank: Vec<(u64, u64)>,
    /// Files that never became segments.
    pub(crate) junk: Vec<String>,
    /// Bytes behind the last whole batch that belong to a batch never acknowledged.
    pub(crate) torn_bytes: u64,
    /// The highest incarnation seen.
    pub(crate) incarnation: u64,
    /// The highest index seen.
    pub(crate) index: u64,
}

impl Inspection {
    /// The last sequence there is, given the checkpoint's.
    pub(crate) fn last_seq(&self, floor: Seq) -> Seq {
        self.segments
            .last()
            .map_or(floor, |segment| segment.last_seq.max(floor))
    }
}

/// Either the folder is whole, or acknowledged records are gone.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) inspection: Inspection,
    /// The first damage; `inspection.segments` ends before it.
    pub(crate) damage: Option<Damage>,
}

/// A file as it lies there.
enum Candidate {
    Segment(SegmentHeader, u64),
    Blank(u64),
    /// No header, and no frames: never used.
    Unused,
    /// No header, but frames, from the first sequence to the last.
    Headless(Seq, Seq),
}

/// Reads all segments and finds what there is to replay after a checkpoint at `floor`.
pub(crate) fn inspect<D: Disk>(disk: &D, floor: Seq, known: &Known) -> Result<Found, OpenError> {
    let mut inspection = Inspection::default();
    let mut headers = Vec::new();
    let mut damage = None;
    for (name, index) in segment_files(disk, &mut inspection)? {
        inspection.index = inspection.index.max(index);
        match classify(disk, &name, index, known)? {
            Candidate::Segment(header, bytes) => {
                inspection.incarnation = inspection.incarnation.max(header.incarnation);
                headers.push((header, bytes));
            }
            Candidate::Blank(bytes) => inspection.blank.push((index, bytes)),
            Candidate::Unused => inspection.junk.push(name),
            Candidate::Headless(_, last) if last <= floor => inspection.junk.push(name),
            Candidate::Headless(first, _) => {
                damage.get_or_insert(headless(name, first));
            }
        }
    }
    skip_stale(&mut headers, floor, &mut inspection);
    let chained = chain(disk, headers, floor, known, &mut inspection)?;
    Ok(Found {
        inspection,
        damage: chained.or(damage),
    })
}

/// The segment files in order; anything half-made is junk, anything else is not ours.
fn segment_files<D: Disk>(
    disk: &D,
    inspection: &mut Inspection,
) -> Result<Vec<(String, u64)>, OpenError> {
    let names = disk
        .list()
        .map_err(|error| io_error("list the state folder", error))?;
    let mut files = Vec::new();
    for name in names {
        if name == HALF_MADE {
            inspection.junk.push(name);
        } else if let Some(index) = segment_index(&name) {
            files.push((name, index));
        }
    }
    files.sort_by_key(|(_, index)| *index);
    Ok(files)
}

fn classify<D: Disk>(
    disk: &D,
    name: &str,
    index: u64,
    known: &Known,
) -> Result<Candidate, OpenError> {
    let (file, bytes) = open_segment(disk, name)?;
    let mut block = vec![0; SEGMENT_HEADER.min(usize_of(bytes))];
    file.read_at(&mut block, 0)
        .map_err(|error| io_error("read a segment", error))?;
    match SegmentHeader::decode(&block) {
        HeaderRead::Valid(header) if header.index == index => {
            if header.schema > known.schema {
                return Err(newer(name, "schema", header.schema, known.schema));
            }
            Ok(Candidate::Segment(header, bytes))
        }
        HeaderRead::Newer(found) => Err(newer(name, "format", found, FORMAT_VERSION)),
        // A valid header in a file of another name was copied there: as good as none.
        HeaderRead::Valid(_) | HeaderRead::Invalid => headless_kind(&file, bytes),
    }
}

/// A file without a header: prepared, or torn while its header was written, or damaged.
///
/// A header is flushed before the first frame is written, so frames mean damage.
fn headless_kind<F: DiskFile>(file: &F, bytes: u64) -> Result<Candidate, OpenError> {
    let content = read_all(file, bytes).map_err(|error| io_error("read a segment", error))?;
    if content.iter().all(|byte| *byte == 0) {
        return Ok(Candidate::Blank(bytes));
    }
    let seqs = || frames_from(&content, SEGMENT_HEADER, 0..=Seq::MAX).map(|frame| frame.seq);
    let ends = seqs().min().zip(seqs().max());
    Ok(ends.map_or(Candidate::Unused, |(first, last)| {
        Candidate::Headless(first, last)
    }))
}

fn headless(segment: String, seq: Seq) -> Damage {
    let durable_seq = seq.saturating_sub(1);
    Damage {
        segment,
        offset: 0,
        seq,
        durable_seq,
        evidence: Evidence::Header,
    }
}

/// Sets aside the segments that the checkpoint has wholly overtaken.
///
/// One is overtaken when the next starts at or below the first sequence to replay.
fn skip_stale(headers: &mut Vec<(SegmentHeader, u64)>, floor: Seq, inspection: &mut Inspection) {
    let first = headers
        .iter()
        .rposition(|(header, _)| header.first_seq <= floor + 1)
        .unwrap_or(0);
    inspection.stale = headers
        .drain(..first)
        .map(|(header, _)| header.index)
        .collect();
}

/// Follows the segments from the checkpoint on. Stops at the first damage.
fn chain<D: Disk>(
    disk: &D,
    headers: Vec<(SegmentHeader, u64)>,
    floor: Seq,
    known: &Known,
    inspection: &mut Inspection,
) -> Result<Option<Damage>, OpenError> {
    let mut expected = floor + 1;
    let mut rest = headers.into_iter().peekable();
    if let Some((header, _)) = rest.peek() {
        if header.first_seq <= expected {
            expected = header.first_seq;
        }
    } else if floor > 0 {
        return Ok(Some(missing(
            segment_name(inspection.index),
            expected,
            floor,
        )));
    }
    while let Some((header, bytes)) = rest.next() {
        if header.first_seq != expected {
            let durable_seq = header.first_seq.saturating_sub(1);
            let segment = segment_name(header.index);
            let evidence = Evidence::LaterSegment;
            return Ok(Some(Damage {
                segment,
                offset: 0,
                seq: expected,
                durable_seq,
                evidence,
            }));
        }
        let promised = rest
            .peek()
            .map(|(next, _)| next.first_seq.saturating_sub(1));
        let (segment, damage) = read_segment(disk, header, bytes, promised, floor, known)?;
        expected = segment.last_seq + 1;
        inspection.torn_bytes = segment.torn_bytes;
        inspection.segments.push(segment);
        if damage.is_some() {
            return Ok(damage);
        }
    }
    Ok(None)
}

/// The journal is gone, but the checkpoint says there was one.
fn missing(segment: String, seq: Seq, floor: Seq) -> Damage {
    Damage {
        segment,
        offset: 0,
        seq,
        durable_seq: floor,
        evidence: Evidence::Checkpoint,
    }
}

/// Reads one segment to its first bad frame and looks for proof that more had been durable.
fn read_segment<D: Disk>(
    disk: &D,
    header: SegmentHeader,
    bytes: u64,
    promised: Option<Seq>,
    floor: Seq,
    known: &Known,
) -> Result<(Segment, Option<Damage>), OpenError> {
    let name = segment_name(header.index);
    let (file, _) = open_segment(disk, &name)?;
    let content = read_all(&file, bytes).map_err(|error| io_error("read a segment", error))?;
    let walk = walk(&content, &header, known)?;
    let evidence = [
        (
            later_promise(&content, &walk, &header),
            Evidence::LaterFrame,
        ),
        (promised, Evidence::LaterSegment),
        (Some(floor), Evidence::Checkpoint),
    ];
    let lost = evidence.into_iter().find_map(|(durable, evidence)| {
        durable
            .filter(|durable| *durable > walk.last_seq)
            .map(|durable| (durable, evidence))
    });
    let damage = lost.map(|(durable_seq, evidence)| Damage {
        segment: name,
        offset: walk.bad as u64,
        seq: walk.bad_seq,
        durable_seq,
        evidence,
    });
    let torn = content[walk.batch.end..]
        .iter()
        .rposition(|byte| *byte != 0);
    let segment = Segment {
        header,
        last_seq: walk.last_seq,
        batch: walk.batch.start as u64..walk.batch.end as u64,
        bytes,
        torn_bytes: torn.map_or(0, |at| at as u64 + 1),
    };
    Ok((segment, damage))
}

/// How far a segment's frames are good.
struct Walk {
    /// The last sequence of the last whole batch, and where that batch lies.
    last_seq: Seq,
    batch: Range<usize>,
    /// Where the first frame is that cannot be read, and which it should be.
    bad: usize,
    bad_seq: Seq,
}

fn walk(content: &[u8], header: &SegmentHeader, known: &Known) -> Result<Walk, OpenError> {
    let first = header.first_seq;
    let empty = SEGMENT_HEADER..SEGMENT_HEADER;
    let mut walk = Walk {
        last_seq: first - 1,
        batch: empty,
        bad: SEGMENT_HEADER,
        bad_seq: first,
    };
    while let Some(frame) = Frame::decode(content, walk.bad) {
        if frame.seq != walk.bad_seq || frame.incarnation != header.incarnation {
            break;
        }
        if frame.tag != CLOSE_TAG && !known.tags[usize::from(frame.tag)] {
            let segment = segment_name(header.index);
            return Err(OpenError::UnknownRecord {
                tag: frame.tag,
                seq: frame.seq,
                segment,
            });
        }
        walk.bad += frame.bytes();
        walk.bad_seq += 1;
        if frame.last_of_batch {
            walk.last_seq = frame.seq;
            walk.batch = walk.batch.end..walk.bad;
        }
    }
    Ok(walk)
}

/// The most that readable frames behind the first bad one promise to have been durable.
fn later_promise(content: &[u8], walk: &Walk, header: &SegmentHeader) -> Option<Seq> {
    #[cfg(test)]
    if crate::planted::is(crate::planted::Bug::TruncateAtDamage) {
        return None;
    }
    let room = (content.len().saturating_sub(walk.bad) / FRAME_HEADER) as u64;
    let plausible = walk.bad_seq..=walk.bad_seq + room;
    frames_from(content, walk.bad, plausible)
        .filter(|frame| frame.incarnation == header.incarnation)
        .map(|frame| frame.promise())
        .max()
}

/// Every frame that can be read from an offset on, over whatever lies between, if its sequence is
/// in a range (looked at first: most of what is not a frame is passed over without a checksum).
fn frames_from(
    content: &[u8],
    mut at: usize,
    seqs: RangeInclusive<Seq>,
) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || loop {
        let seq = peek_seq(content, at)?;
        let frame = Some(seq)
            .filter(|seq| seqs.contains(seq))
            .and_then(|_| Frame::decode(content, at));
        at += frame.as_ref().map_or(ALIGN, Frame::bytes);
        if frame.is_some() {
            return frame;
        }
    })
}

/// A record of the journal, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its sequence.
    pub seq: Seq,
    /// Its type tag.
    pub tag: u8,
    /// The payload schema it was written with.
    pub schema: u16,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// The records of one segment above `floor`, in order, the journal's own left out.
pub(crate) fn records<D: Disk>(
    disk: &D,
    segment: &Segment,
    floor: Seq,
) -> Result<Vec<Record>, OpenError> {
    let (file, bytes) = open_segment(disk, &segment.name())?;
    let bytes = bytes.min(segment.batch.end);
    let content = read_all(&file, bytes).map_err(|error| io_error("read a segment", error))?;
    let mut records = Vec::new();
    let mut offset = SEGMENT_HEADER;
    let mut next = segment.header.first_seq;
    while let Some(frame) = Frame::decode(&content, offset) {
        offset += frame.bytes();
        next += 1;
        if frame.seq > floor && frame.tag != CLOSE_TAG {
            let schema = segment.header.schema;
            let (seq, tag) = (frame.seq, frame.tag);
            records.push(Record {
                seq,
                tag,
                schema,
                payload: frame.payload.to_vec(),
            });
        }
    }
    if next <= segment.last_seq {
        let error = io::Error::other("a segment changed while it was read");
        return Err(io_error("read a segment", error));
    }
    Ok(records)
}

/// The offset behind the frame with this sequence, in the bytes of a segment.
pub(crate) fn end_of(content: &[u8], upto_seq: Seq) -> usize {
    let mut offset = SEGMENT_HEADER.min(content.len());
    while let Some(frame) = Frame::decode(content, offset).filter(|f| f.seq <= upto_seq) {
        offset += frame.bytes();
    }
    offset
}

pub(crate) fn read_all<F: DiskFile>(file: &F, bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = vec![0; usize_of(bytes)];
    file.read_at(&mut content, 0)?;
    Ok(content)
}

fn open_segment<D: Disk>(disk: &D, name: &str) -> Result<(D::File, u64), OpenError> {
    let opened = disk.open_to_read(name).and_then(|file| {
        let bytes = file.size()?;
        Ok((file, bytes))
    });
    opened.map_err(|error| io_error("open a segment", error))
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

pub(crate) fn io_error(doing: &'static str, error: io::Error) -> OpenError {
    OpenError::Io { doing, error }
}

fn newer(segment: &str, what: &'static str, found: u16, known: u16) -> OpenError {
    OpenError::Newer {
        segment: segment.to_owned(),
        what,
        found,
        known,
    }
}
