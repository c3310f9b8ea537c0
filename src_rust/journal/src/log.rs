//! The journal without its checkpoint: append, flush, replay, retire.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::disk::Disk;
use crate::error::OpenError;
use crate::options::Options;
use crate::recover::recover;
use crate::scan::{io_error, records, segment_name, Record, Segment};
use crate::shared::{Live, Shared};
use crate::writer::{Preparer, Writer};
use crate::Seq;

/// A recovered journal whose threads have not been started.
pub(crate) struct Log<D: Disk> {
    pub(crate) shared: Arc<Shared<D>>,
    pub(crate) writer: Writer<D>,
    pub(crate) preparer: Preparer<D>,
    pub(crate) replay: Replay<D>,
    pub(crate) torn_bytes: u64,
}

/// The records after the checkpoint, in order, read segment by segment.
///
/// Drain it before the first checkpoint: that one may remove the segments it reads.
pub struct Replay<D: Disk> {
    shared: Arc<Shared<D>>,
    segments: VecDeque<Segment>,
    floor: Seq,
    current: std::vec::IntoIter<Record>,
}

impl<D: Disk> Iterator for Replay<D> {
    type Item = Result<Record, OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.current.next() {
                return Some(Ok(record));
            }
            let segment = self.segments.pop_front()?;
            match records(&self.shared.disk, &segment, self.floor) {
                Ok(records) => self.current = records.into_iter(),
                Err(error) => {
                    self.segments.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl<D: Disk> Log<D> {
    /// Recovers the journal above a checkpoint at `floor`.
    pub(crate) fn open(disk: D, options: Options, floor: Seq) -> Result<Self, OpenError> {
        let recovered = recover(&disk, &options, floor)?;
        let shared = Shared::new(disk, options, recovered.start)
            .map_err(|error| io_error("make an event descriptor", error))?;
        let shared = Arc::new(shared);
        Ok(Self {
            writer: Writer::new(Arc::clone(&shared), recovered.active),
            preparer: Preparer::new(Arc::clone(&shared), recovered.next_index),
            replay: Replay {
                shared: Arc::clone(&shared),
                segments: recovered.segments.into(),
                floor,
                current: Vec::new().into_iter(),
            },
            torn_bytes: recovered.torn_bytes,
            shared,
        })
    }
}

/// The writer and preparer threads.
pub(crate) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Starts both. One spare is prepared first, so that the first holds need not wait for it.
    pub(crate) fn start<D: Disk>(
        writer: Writer<D>,
        mut preparer: Preparer<D>,
    ) -> Result<Self, OpenError> {
        preparer.step();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_owned()).spawn(run)
        };
        let both = spawn("journal-write", Box::new(|| writer.run())).and_then(|w| {
            Ok(vec![
                w,
                spawn("journal-spare", Box::new(|| preparer.run()))?,
            ])
        });
        both.map(Self)
            .map_err(|error| io_error("start a journal thread", error))
    }

    /// Waits for both to end; a panic was published as a fault.
    pub(crate) fn join(&mut self) {
        for thread in self.0.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Removes the segments that hold nothing above a sequence. A file left behind by an error or a
/// crash is removed at the next start.
pub(crate) fn retire<D: Disk>(shared: &Shared<D>, upto_seq: Seq) -> io::Result<()> {
    let retired: Vec<Live> = shared.lock().take_retired(upto_seq);
    for live in &retired {
        shared.disk.remove(&segment_name(live.index))?;
    }
    if !retired.is_empty() {
        shared.room_made();
    }
    Ok(())
}
