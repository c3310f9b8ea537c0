//! The two threads behind the journal, as steps: one writes batches, one prepares segments.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::disk::{Disk, DiskFile};
use crate::error::{is_no_space, is_passing};
use crate::frame::{stamp, SegmentHeader, FORMAT_VERSION, SEGMENT_HEADER};
use crate::options::{Options, SPARES};
use crate::scan::{segment_name, HALF_MADE};
use crate::shared::{Live, Shared, Spare, Taken, Wake};
use crate::Seq;

/// Writes what is queued: one batch, one flush, one announcement.
pub(crate) struct Writer<D: Disk> {
    shared: Arc<Shared<D>>,
    file: D::File,
    position: u64,
    taken: Taken,
}

/// Whether a thread should go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Done,
    Nothing,
    Stop,
}

/// A failure that ends the journal.
struct Failed(&'static str, io::Error);

impl<D: Disk> Writer<D> {
    pub(crate) fn new(shared: Arc<Shared<D>>, file: D::File) -> Self {
        Self {
            shared,
            file,
            position: SEGMENT_HEADER as u64,
            taken: Taken::default(),
        }
    }

    /// Steps until the journal closes or fails.
    pub(crate) fn run(mut self) {
        let _guard = PanicGuard(Arc::clone(&self.shared));
        while self.step(true) == Step::Done {}
    }

    /// Writes one round of what is queued, waiting for some if asked.
    pub(crate) fn step(&mut self, wait: bool) -> Step {
        let mut taken = std::mem::take(&mut self.taken);
        let step = match self.shared.take(&mut taken, wait) {
            Wake::Idle => Step::Nothing,
            Wake::Closing => Step::Stop,
            Wake::Work => self.write(&mut taken).map_or_else(
                |Failed(operation, error)| {
                    self.shared.fault(operation, &error);
                    Step::Stop
                },
                |()| Step::Done,
            ),
        };
        self.taken = taken;
        step
    }

    /// Writes each segment's share as a batch of its own.
    fn write(&mut self, taken: &mut Taken) -> Result<(), Failed> {
        for (share, rotate) in shares(&taken.cuts, taken.bytes.len()) {
            if rotate {
                self.rotate()?;
            }
            self.write_batch(&mut taken.bytes[share])?;
        }
        Ok(())
    }

    fn write_batch(&mut self, batch: &mut [u8]) -> Result<(), Failed> {
        if batch.is_empty() {
            return Ok(());
        }
        let durable = self.shared.durable_seq();
        let records = stamp(batch, self.shared.incarnation, durable);
        self.write_bytes(batch)
            .map_err(|error| Failed("write", error))?;
        #[cfg(test)]
        if crate::planted::is(crate::planted::Bug::AcknowledgeBeforeFlush) {
            self.shared.publish(durable + records);
        }
        let began = Instant::now();
        self.flush().map_err(|error| Failed("flush", error))?;
        self.shared
            .meters
            .flushed(began.elapsed(), records, batch.len() as u64);
        self.position += batch.len() as u64;
        self.shared.publish(durable + records);
        Ok(())
    }

    /// Writes a batch, waiting out a full disk: nothing was flushed yet, so nothing is lost by
    /// writing it again.
    fn write_bytes(&self, batch: &[u8]) -> io::Result<()> {
        loop {
            let written = self.file.write_at(batch, self.position);
            let full = written.as_ref().is_err_and(is_no_space);
            self.shared.lock().write_full = full;
            if !full || self.shared.pause(self.shared.options.space_retry) {
                return written;
            }
        }
    }

    /// Flushes once. After a failure the pages count as clean though they are not on the disk, so
    /// a second call would say "done" for bytes that are gone.
    fn flush(&self) -> io::Result<()> {
        #[cfg(test)]
        if crate::planted::is(crate::planted::Bug::RetryFailedFlush) {
            return self.file.sync().or_else(|_| self.file.sync());
        }
        self.file.sync()
    }

    /// Moves to the next prepared segment. Its header is durable before its first frame is written.
    fn rotate(&mut self) -> Result<(), Failed> {
        let spare = self.shared.next_spare();
        let first_seq = self.shared.durable_seq() + 1;
        begin_segment(
            &spare,
            first_seq,
            self.shared.incarnation,
            &self.shared.options,
        )
        .map_err(|error| Failed("write", error))?;
        self.shared.lock().live.push_back(Live {
            index: spare.index,
            first_seq,
        });
        self.file = spare.file;
        self.position = SEGMENT_HEADER as u64;
        Ok(())
    }
}

/// The parts of a round between its cuts, and whether each begins a segment.
fn shares(cuts: &[usize], end: usize) -> Vec<(Range<usize>, bool)> {
    let starts = std::iter::once(&0).chain(cuts);
    let ends = cuts.iter().chain(std::iter::once(&end));
    starts
        .zip(ends)
        .enumerate()
        .map(|(i, (from, to))| (*from..*to, i > 0))
        .collect()
}

/// Writes and flushes the header that turns a prepared file into a segment.
pub(crate) fn begin_segment<F: DiskFile>(
    spare: &Spare<F>,
    first_seq: Seq,
    incarnation: u64,
    options: &Options,
) -> io::Result<()> {
    let header = SegmentHeader {
        version: FORMAT_VERSION,
        schema: options.schema,
        index: spare.index,
        incarnation,
        first_seq,
        host: options.host,
        segment_bytes: options.segment_bytes,
    };
    spare.file.write_at(&header.encode(), 0)?;
    spare.file.sync()
}

/// Keeps prepared segments ready.
pub(crate) struct Preparer<D: Disk> {
    shared: Arc<Shared<D>>,
    next_index: u64,
}

impl<D: Disk> Preparer<D> {
    pub(crate) fn new(shared: Arc<Shared<D>>, next_index: u64) -> Self {
        Self { shared, next_index }
    }

    /// Steps until the journal closes or fails.
    pub(crate) fn run(mut self) {
        let _guard = PanicGuard(Arc::clone(&self.shared));
        while !self.shared.wait_wanted(SPARES) {
            let pause = self.shared.options.space_retry;
            match self.step() {
                Step::Nothing if self.shared.pause(pause) => return,
                Step::Stop => return,
                _ => {}
            }
        }
    }

    /// Prepares one segment if one is wanted.
    pub(crate) fn step(&mut self) -> Step {
        if !self.shared.lock().wants_spare(SPARES) {
            return Step::Nothing;
        }
        let options = &self.shared.options;
        let made = room_for_spare(&self.shared.disk, options)
            .and_then(|()| make_spare(&self.shared.disk, self.next_index, options.segment_bytes));
        match made {
            Ok(spare) => {
                self.next_index += 1;
                self.shared.lock().add_spare(spare);
                Step::Done
            }
            Err(error) if is_passing(&error) => {
                self.shared.lock().spare_full |= is_no_space(&error);
                Step::Nothing
            }
            Err(error) => {
                self.shared.fault("prepare", &error);
                Step::Stop
            }
        }
    }
}

/// Leaves the checkpoint its room: without it no segment could ever be retired.
fn room_for_spare<D: Disk>(disk: &D, options: &Options) -> io::Result<()> {
    let needed = options.segment_bytes + options.free_bytes_min;
    if disk.free_bytes().is_some_and(|free| free < needed) {
        return Err(io::Error::from(io::ErrorKind::StorageFull));
    }
    Ok(())
}

/// Makes a file of zeros under a passing name, and gives it its own once it is whole.
pub(crate) fn make_spare<D: Disk>(disk: &D, index: u64, bytes: u64) -> io::Result<Spare<D::File>> {
    remove_if_there(disk, HALF_MADE)?;
    let file = disk.create(HALF_MADE, bytes)?;
    file.sync()?;
    disk.rename(HALF_MADE, &segment_name(index))?;
    #[cfg(test)]
    if crate::planted::is(crate::planted::Bug::SkipFolderFlush) {
        return Ok(Spare { index, file });
    }
    disk.sync_dir()?;
    Ok(Spare { index, file })
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Publishes a fault if its thread panics, so that nobody waits for ever.
pub(crate) struct PanicGuard<D: Disk>(pub(crate) Arc<Shared<D>>);

impl<D: Disk> Drop for PanicGuard<D> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .fault("panic", &io::Error::other("a journal thread panicked"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_shared_out_at_its_cuts() {
        assert_eq!(shares(&[], 10), [(0..10, false)]);
        assert_eq!(shares(&[0], 10), [(0..0, false), (0..10, true)]);
        assert_eq!(
            shares(&[3, 7], 10),
            [(0..3, false), (3..7, true), (7..10, true)]
        );
    }
}
