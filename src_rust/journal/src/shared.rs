//! What the callers, the writer and the preparer share: one mutex, held for moments only.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::error::{AppendError, Fault, WaitError};
use crate::frame::{frame_bytes, push_frame, CLOSE_TAG, SEGMENT_HEADER};
use crate::options::Options;
use crate::scan::Known;
use crate::signal::Signal;
use crate::stats::{Meters, Stats};
use crate::Seq;

/// What a record is for: settlements may use the last space, holds may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// New obligations: refused when only the reserve is left.
    Hold,
    /// Everything that must still fit then: settlements, releases, adjustments.
    Settle,
}

impl Class {
    /// Spare segments that this class may not touch.
    fn keeps(self) -> usize {
        match self {
            Self::Hold => 1,
            Self::Settle => 0,
        }
    }

    /// How much of the queue this class may fill.
    fn queue_max(self, options: &Options) -> usize {
        match self {
            Self::Hold => options.queue_bytes_max,
            Self::Settle => options.queue_bytes_max + options.queue_bytes_max / 4,
        }
    }
}

/// A prepared segment file: all zeros, its name durable.
pub(crate) struct Spare<F> {
    pub(crate) index: u64,
    pub(crate) file: F,
}

/// A segment whose records are not retired yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) index: u64,
    pub(crate) first_seq: Seq,
}

/// What the mutex guards.
pub(crate) struct State<F> {
    /// Frames that wait for the writer.
    queue: Vec<u8>,
    /// Offsets in `queue` at which a new segment begins.
    cuts: Vec<usize>,
    next_seq: Seq,
    /// Where the next frame will lie in the segment that is active by then.
    position: u64,
    /// Prepared segments; the first `promised` of them belong to cuts already made.
    spares: VecDeque<Spare<F>>,
    promised: usize,
    pub(crate) live: VecDeque<Live>,
    /// Backups under way: nothing is retired meanwhile.
    pub(crate) pins: usize,
    /// There was no room for a spare, or for a write.
    pub(crate) spare_full: bool,
    pub(crate) write_full: bool,
    fault: Option<Fault>,
    closing: bool,
    writer_waits: bool,
    /// When the oldest record came that waits in `queue`.
    since: Option<Instant>,
    /// Somebody waits for what is in `queue`.
    urgent: bool,
    refused_full: u64,
    refused_busy: u64,
}

/// What the writer takes at a time.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) bytes: Vec<u8>,
    pub(crate) cuts: Vec<usize>,
}

/// Why the writer or preparer woke.
pub(crate) enum Wake {
    Work,
    Idle,
    Closing,
}

/// The journal as its callers and threads see it.
pub(crate) struct Shared<D: Disk> {
    pub(crate) disk: D,
    pub(crate) options: Options,
    pub(crate) incarnation: u64,
    pub(crate) meters: Meters,
    known: Known,
    state: Mutex<State<D::File>>,
    durable: Arc<AtomicU64>,
    signal: Signal,
    work: Condvar,
    room: Condvar,
    done: Condvar,
}

/// Where a journal starts.
pub(crate) struct Start<F> {
    pub(crate) incarnation: u64,
    pub(crate) last_seq: Seq,
    pub(crate) live: VecDeque<Live>,
    pub(crate) spares: VecDeque<Spare<F>>,
}

impl<D: Disk> Shared<D> {
    pub(crate) fn new(disk: D, options: Options, start: Start<D::File>) -> io::Result<Self> {
        let state = State {
            queue: Vec::new(),
            cuts: Vec::new(),
            next_seq: start.last_seq + 1,
            position: SEGMENT_HEADER as u64,
            spares: start.spares,
            promised: 0,
            live: start.live,
            pins: 0,
            spare_full: false,
            write_full: false,
            fault: None,
            closing: false,
            writer_waits: false,
            since: None,
            urgent: false,
            refused_full: 0,
            refused_busy: 0,
        };
        Ok(Self {
            disk,
            incarnation: start.incarnation,
            known: options.known(),
            options,
            meters: Meters::default(),
            state: Mutex::new(state),
            durable: Arc::new(AtomicU64::new(start.last_seq)),
            signal: Signal::new()?,
            work: Condvar::new(),
            room: Condvar::new(),
            done: Condvar::new(),
        })
    }

    /// The state. A panic elsewhere is published as a fault, so a poisoned mutex says nothing new.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<D::File>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues records that become durable together or not at all. Returns the last sequence.
    pub(crate) fn append(&self, class: Class, records: &[(u8, &[u8])]) -> Result<Seq, AppendError> {
        let bytes = self.check(records)?;
        let mut state = self.lock();
        if let Err(refusal) = state.place(class, bytes, &self.options) {
            state.count(&refusal);
            return Err(refusal);
        }
        for (tag, payload) in records {
            state.push(*tag, payload);
        }
        let seq = state.next_seq - 1;
        if !self.options.linger.is_zero() {
            state.since.get_or_insert_with(Instant::now);
        }
        self.wake_writer(state);
        Ok(seq)
    }

    /// Has what is queued written now.
    pub(crate) fn hurry(&self) {
        let mut state = self.lock();
        let lingers = !state.queue.is_empty() && !std::mem::replace(&mut state.urgent, true);
        drop(state);
        if lingers {
            self.work.notify_one();
        }
    }

    /// Checks records before any lock is taken. Returns the bytes of their frames.
    fn check(&self, records: &[(u8, &[u8])]) -> Result<usize, AppendError> {
        if records.is_empty() {
            return Err(AppendError::Empty);
        }
        let max = self.options.record_bytes_max;
        let mut total = 0;
        for (tag, payload) in records {
            if !self.known.tags[usize::from(*tag)] {
                return Err(AppendError::UnknownTag(*tag));
            }
            if payload.len() > max {
                return Err(AppendError::TooLarge {
                    bytes: payload.len(),
                    max,
                });
            }
            total += frame_bytes(payload.len());
        }
        let room = self.options.segment_bytes as usize - SEGMENT_HEADER;
        let max = room.min(self.options.queue_bytes_max);
        if total > max {
            return Err(AppendError::TooLarge { bytes: total, max });
        }
        Ok(total)
    }

    fn wake_writer(&self, mut state: MutexGuard<'_, State<D::File>>) {
        let waits = std::mem::take(&mut state.writer_waits);
        drop(state);
        if waits {
            self.work.notify_one();
        }
    }

    /// Marks a clean end and asks both threads to finish what is queued.
    pub(crate) fn begin_close(&self) {
        let mut state = self.lock();
        let used = state.position > SEGMENT_HEADER as u64;
        let fits = |state: &mut State<D::File>| {
            state
                .place(Class::Settle, frame_bytes(0), &self.options)
                .is_ok()
        };
        if !state.closing && used && fits(&mut state) {
            state.push(CLOSE_TAG, &[]);
        }
        state.closing = true;
        drop(state);
        self.work.notify_all();
        self.room.notify_all();
        self.done.notify_all();
    }

    /// Takes all that waits, in exchange for emptied buffers.
    pub(crate) fn take(&self, taken: &mut Taken, wait: bool) -> Wake {
        taken.bytes.clear();
        taken.cuts.clear();
        let mut state = self.lock();
        loop {
            if state.fault.is_some() {
                return Wake::Closing;
            }
            if let (true, Some(rest)) = (wait, state.gathers_for(self.options.linger)) {
                state = self
                    .work
                    .wait_timeout(state, rest)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                continue;
            }
            if !state.queue.is_empty() {
                std::mem::swap(&mut state.queue, &mut taken.bytes);
                std::mem::swap(&mut state.cuts, &mut taken.cuts);
                state.since = None;
                state.urgent = false;
                return Wake::Work;
            }
            if state.closing {
                return Wake::Closing;
            }
            if !wait {
                return Wake::Idle;
            }
            state.writer_waits = true;
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next prepared segment: [`State::place`] promised that there is one.
    pub(crate) fn next_spare(&self) -> Spare<D::File> {
        let mut state = self.lock();
        state.promised -= 1;
        let spare = state
            .spares
            .pop_front()
            .expect("a cut is made only for a spare that is there");
        drop(state);
        self.room.notify_all();
        spare
    }

    /// Makes a sequence durable for all who wait and watch.
    pub(crate) fn publish(&self, seq: Seq) {
        self.durable.store(seq, Ordering::Release);
        self.signal.raise();
        drop(self.lock());
        self.done.notify_all();
    }

    /// Ends the journal. The first fault stands; what waits is never written.
    pub(crate) fn fault(&self, operation: &'static str, error: &io::Error) {
        let mut state = self.lock();
        if state.fault.is_none() {
            state.fault = Some(Fault {
                operation,
                errno: error.raw_os_error(),
                message: error.to_string(),
                durable_seq: self.durable_seq(),
            });
        }
        drop(state);
        self.signal.raise();
        self.work.notify_all();
        self.room.notify_all();
        self.done.notify_all();
    }

    pub(crate) fn fault_seen(&self) -> Option<Fault> {
        self.lock().fault.clone()
    }

    pub(crate) fn durable_seq(&self) -> Seq {
        self.durable.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(crate) fn durable_cell(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.durable)
    }

    pub(crate) fn signal(&self) -> &Signal {
        &self.signal
    }

    /// Waits until a sequence is durable.
    pub(crate) fn wait_durable(&self, seq: Seq, timeout: Duration) -> Result<(), WaitError> {
        let deadline = Instant::now() + timeout;
        if self.durable_seq() < seq {
            self.hurry();
        }
        let mut state = self.lock();
        loop {
            if self.durable_seq() >= seq {
                return Ok(());
            }
            if let Some(fault) = &state.fault {
                return Err(WaitError::Faulted(fault.clone()));
            }
            if state.closing && seq >= state.next_seq {
                return Err(WaitError::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(WaitError::TimedOut);
            }
            state = self
                .done
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Pauses a thread that waits for room. Returns whether it should stop.
    pub(crate) fn pause(&self, pause: Duration) -> bool {
        let state = self.lock();
        if state.stops() {
            return true;
        }
        self.room
            .wait_timeout(state, pause)
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .stops()
    }

    /// Waits until a spare is wanted. Returns whether to stop instead.
    pub(crate) fn wait_wanted(&self, wanted: usize) -> bool {
        let mut state = self.lock();
        while !state.stops() && state.available() >= wanted {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.stops()
    }

    /// Says that files were removed: there may be room again.
    pub(crate) fn room_made(&self) {
        self.room.notify_all();
    }

    pub(crate) fn stats(&self) -> Stats {
        let free_bytes = self.disk.free_bytes();
        let state = self.lock();
        let count = |meter: &AtomicU64| meter.load(Ordering::Relaxed);
        Stats {
            durable_seq: self.durable_seq(),
            appended_seq: state.next_seq - 1,
            queued_bytes: state.queue.len(),
            batches: count(&self.meters.batches),
            records: count(&self.meters.records),
            bytes: count(&self.meters.bytes),
            flush: self.meters.flush_times(),
            segments: state.live.len(),
            spares: state.available(),
            disk_full: state.full(),
            free_bytes,
            refused_full: state.refused_full,
            refused_busy: state.refused_busy,
            fault: state.fault.clone(),
        }
    }
}

impl<F> State<F> {
    /// How long what is queued may still gather company, if it may.
    fn gathers_for(&self, linger: Duration) -> Option<Duration> {
        let rest = linger.checked_sub(self.since?.elapsed())?;
        (!self.urgent && !self.closing && self.fault.is_none() && !rest.is_zero()).then_some(rest)
    }

    /// Finds room for frames, moving to the next segment if they do not fit this one.
    fn place(&mut self, class: Class, bytes: usize, options: &Options) -> Result<(), AppendError> {
        if let Some(fault) = &self.fault {
            return Err(AppendError::Faulted(fault.clone()));
        }
        if self.closing {
            return Err(AppendError::Closed);
        }
        if class == Class::Hold && self.write_full {
            return Err(AppendError::Full);
        }
        if self.queue.len() + bytes > class.queue_max(options) {
            return Err(AppendError::Busy);
        }
        let fits = self.position + bytes as u64 <= options.segment_bytes;
        if self.available() < usize::from(!fits) + class.keeps() {
            return Err(if self.full() {
                AppendError::Full
            } else {
                AppendError::Busy
            });
        }
        if !fits {
            self.cuts.push(self.queue.len());
            self.promised += 1;
            self.position = SEGMENT_HEADER as u64;
        }
        Ok(())
    }

    fn push(&mut self, tag: u8, payload: &[u8]) {
        push_frame(&mut self.queue, self.next_seq, tag, payload);
        self.next_seq += 1;
        self.position += frame_bytes(payload.len()) as u64;
    }

    fn count(&mut self, refusal: &AppendError) {
        match refusal {
            AppendError::Full => self.refused_full += 1,
            AppendError::Busy => self.refused_busy += 1,
            _ => {}
        }
    }

    /// Spares that no cut has been promised.
    fn available(&self) -> usize {
        self.spares.len() - self.promised
    }

    fn full(&self) -> bool {
        self.spare_full || self.write_full
    }

    fn stops(&self) -> bool {
        self.closing || self.fault.is_some()
    }

    pub(crate) fn wants_spare(&self, wanted: usize) -> bool {
        self.available() < wanted
    }

    pub(crate) fn add_spare(&mut self, spare: Spare<F>) {
        self.spares.push_back(spare);
        self.spare_full = false;
    }

    /// Takes the segments that hold nothing above a sequence; the last is never one of them.
    pub(crate) fn take_retired(&mut self, upto_seq: Seq) -> Vec<Live> {
        let mut retired = Vec::new();
        while self.pins == 0
            && self
                .live
                .get(1)
                .is_some_and(|next| next.first_seq <= upto_seq + 1)
        {
            retired.extend(self.live.pop_front());
        }
        retired
    }
}
