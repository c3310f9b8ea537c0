//! Turning a folder that was inspected into a journal that can be written.
//!
//! Every step can be done again: a crash in here leaves a folder that recovers to the same records.

use std::collections::{HashSet, VecDeque};
use std::io;

use crate::disk::{Disk, DiskFile};
use crate::error::{is_no_space, Damage, OpenError};
use crate::options::Options;
use crate::scan::{inspect, io_error, segment_name, Found, Inspection, Segment};
use crate::shared::{Live, Spare, Start};
use crate::writer::{begin_segment, make_spare, remove_if_there};
use crate::Seq;

/// What recovery found and made.
pub(crate) struct Recovered<F> {
    /// The segments to replay.
    pub(crate) segments: Vec<Segment>,
    pub(crate) torn_bytes: u64,
    pub(crate) start: Start<F>,
    pub(crate) active: F,
    pub(crate) next_index: u64,
}

/// Recovers the journal above a checkpoint and begins a segment of a new incarnation.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    options: &Options,
    floor: Seq,
) -> Result<Recovered<D::File>, OpenError> {
    let Found { inspection, damage } = inspect(disk, floor, &options.known())?;
    if let Some(damage) = damage {
        return Err(OpenError::Damaged(damage));
    }
    begin(disk, options, floor, inspection)
}

/// Settles the tail, begins a segment, and only then removes what is no longer needed.
fn begin<D: Disk>(
    disk: &D,
    options: &Options,
    floor: Seq,
    inspection: Inspection,
) -> Result<Recovered<D::File>, OpenError> {
    let last_seq = inspection.last_seq(floor);
    let incarnation = inspection.incarnation + 1;
    if let Some(last) = inspection.segments.last() {
        settle_tail(disk, last).map_err(|error| io_error("flush the journal's tail", error))?;
    }
    let mut spares = reusable(disk, options, &inspection)?;
    let mut next_index = inspection.index + 1;
    let active = match spares.pop_front() {
        Some(spare) => spare,
        None => {
            let spare = make_spare(disk, next_index, options.segment_bytes);
            next_index += 1;
            spare.map_err(|error| no_room(disk, options, error))?
        }
    };
    begin_segment(&active, last_seq + 1, incarnation, options)
        .and_then(|()| disk.sync_dir())
        .map_err(|error| io_error("begin a segment", error))?;
    let segments = clean(disk, inspection, active.index, &spares)
        .map_err(|error| io_error("remove an old segment", error))?;
    let replayed = segments
        .iter()
        .map(|s| (s.header.index, s.header.first_seq));
    let live = replayed.chain([(active.index, last_seq + 1)]);
    let live = live
        .map(|(index, first_seq)| Live { index, first_seq })
        .collect();
    Ok(Recovered {
        torn_bytes: segments.last().map_or(0, |last| last.torn_bytes),
        segments,
        start: Start {
            incarnation,
            last_seq,
            live,
            spares,
        },
        active: active.file,
        next_index,
    })
}

/// Cuts the torn tail and makes what is before it durable.
///
/// The last batch may have been read from the page cache of a process that died before, or after a
/// failed flush. It is written again, so that the flush really covers it.
fn settle_tail<D: Disk>(disk: &D, last: &Segment) -> io::Result<()> {
    let file = disk.open(&last.name())?;
    if last.bytes > last.batch.end {
        file.set_len(last.batch.end)?;
    }
    #[cfg(test)]
    if crate::planted::is(crate::planted::Bug::TrustTheTail) {
        return Ok(());
    }
    let length = usize::try_from(last.batch.end - last.batch.start).unwrap_or(usize::MAX);
    let mut batch = vec![0; length];
    file.read_at(&mut batch, last.batch.start)?;
    file.write_at(&batch, last.batch.start)?;
    file.sync()
}

/// The prepared files that can be used: of the right size, and numbered behind every segment.
fn reusable<D: Disk>(
    disk: &D,
    options: &Options,
    inspection: &Inspection,
) -> Result<VecDeque<Spare<D::File>>, OpenError> {
    let used = inspection
        .segments
        .last()
        .map_or(0, |segment| segment.header.index);
    let fits = |(index, bytes): &&(u64, u64)| *index > used && *bytes == options.segment_bytes;
    let open = |(index, _): &(u64, u64)| {
        let file = disk.open(&segment_name(*index))?;
        Ok(Spare {
            index: *index,
            file,
        })
    };
    let spares = inspection
        .blank
        .iter()
        .filter(fits)
        .map(open)
        .collect::<io::Result<_>>();
    spares.map_err(|error| io_error("open a spare segment", error))
}

/// Removes stale segments, junk, unusable blanks, and segments that never got a record.
///
/// Returns the segments that stay. The active segment is durable by now, so the incarnation and
/// the next sequence are not lost with an empty one.
fn clean<D: Disk>(
    disk: &D,
    inspection: Inspection,
    active: u64,
    spares: &VecDeque<Spare<D::File>>,
) -> io::Result<Vec<Segment>> {
    let kept: HashSet<u64> = spares
        .iter()
        .map(|spare| spare.index)
        .chain([active])
        .collect();
    let (empty, segments): (Vec<_>, Vec<_>) = inspection
        .segments
        .into_iter()
        .partition(|segment| segment.last_seq < segment.header.first_seq);
    let blank = inspection
        .blank
        .iter()
        .map(|(index, _)| *index)
        .filter(|i| !kept.contains(i));
    let empty = empty.iter().map(|segment| segment.header.index);
    let old = inspection
        .stale
        .iter()
        .copied()
        .chain(blank)
        .chain(empty)
        .map(segment_name);
    for name in old.chain(inspection.junk) {
        // The preparer's passing file is gone already if a segment had to be made.
        remove_if_there(disk, &name)?;
    }
    Ok(segments)
}

/// The error of a first segment that could not be made.
fn no_room<D: Disk>(disk: &D, options: &Options, error: io::Error) -> OpenError {
    if is_no_space(&error) {
        let free = disk.free_bytes().unwrap_or(0);
        return OpenError::NoSpace {
            needed: options.segment_bytes,
            free,
        };
    }
    io_error("make a segment", error)
}

/// What was cut away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The damage that was found.
    pub damage: Damage,
    /// The last record that is kept.
    pub last_seq: Seq,
    /// Files set aside, with the names they have now.
    pub set_aside: Vec<String>,
}

/// Cuts the journal at its first damage: everything behind is set aside under other names.
///
/// `announce` is called with the last sequence that will remain, before anything is changed.
/// Returns `None`, having changed nothing, if there is no damage.
pub(crate) fn cut<D: Disk>(
    disk: &D,
    options: &Options,
    floor: Seq,
    announce: impl FnOnce(Seq) -> io::Result<()>,
) -> Result<Option<Cut>, OpenError> {
    let Found {
        mut inspection,
        damage,
    } = inspect(disk, floor, &options.known())?;
    let Some(damage) = damage else {
        return Ok(None);
    };
    // Below the checkpoint nothing needs replaying, and a journal that ends there has a gap.
    if inspection
        .segments
        .last()
        .is_some_and(|last| last.last_seq < floor)
    {
        inspection.segments.clear();
    }
    let last_seq = inspection.last_seq(floor);
    announce(last_seq).map_err(|error| io_error("write the gap marker", error))?;
    let set_aside = set_aside(disk, &inspection)
        .map_err(|error| io_error("set a damaged segment aside", error))?;
    begin_after_cut(disk, options, floor, inspection)?;
    Ok(Some(Cut {
        damage,
        last_seq,
        set_aside,
    }))
}

/// Begins a segment behind what is kept; the ordinary start does the rest.
fn begin_after_cut<D: Disk>(
    disk: &D,
    options: &Options,
    floor: Seq,
    inspection: Inspection,
) -> Result<(), OpenError> {
    let kept = Inspection {
        stale: vec![],
        blank: vec![],
        junk: vec![],
        ..inspection
    };
    begin(disk, options, floor, kept).map(|_| ())
}

/// Renames every segment file that is neither kept, nor stale, nor blank.
fn set_aside<D: Disk>(disk: &D, inspection: &Inspection) -> io::Result<Vec<String>> {
    let kept = inspection
        .segments
        .iter()
        .map(|segment| segment.header.index);
    let blank = inspection.blank.iter().map(|(index, _)| *index);
    let stay: HashSet<String> = kept
        .chain(blank)
        .chain(inspection.stale.iter().copied())
        .map(segment_name)
        .collect();
    let mut aside = Vec::new();
    for name in disk.list()? {
        if name.starts_with("journal-") && !stay.contains(&name) {
            let new_name = format!("cut-{name}");
            disk.rename(&name, &new_name)?;
            aside.push(new_name);
        }
    }
    disk.sync_dir()?;
    aside.sort();
    Ok(aside)
}
