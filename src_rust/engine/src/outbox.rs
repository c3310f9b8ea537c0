//! The way of records to the journal, in the order in which they are applied.

use std::collections::VecDeque;

use cascaded_core::ledger::{NotTaken, Record, RecordSink};
use cascaded_journal::{AppendError, Class, Journal, Seq};

use crate::error::Unavailable;

/// The end of the journal's queue.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// The sequence of the last record.
    last_seq: Seq,
    /// Records that were applied and that the journal has no room for yet: settlements only, so
    /// there are no more of them than holds.
    backlog: VecDeque<(u8, Vec<u8>)>,
    /// Where a record is encoded, kept to spare an allocation.
    buffer: Vec<u8>,
    /// Why the last record was not taken.
    refused: Option<Unavailable>,
}

/// One call's way to the journal; without one, every record is taken.
pub(crate) struct Sink<'a> {
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) journal: Option<&'a Journal>,
}

fn class_of(record: &Record) -> Class {
    match record {
        Record::Reserve(_) | Record::Limits(_) | Record::Sweep(_) => Class::Hold,
        // What takes room back is never refused.
        Record::Ceilings(ceilings) if ceilings.rooms.iter().any(|one| one.room > 0) => Class::Hold,
        _ => Class::Settle,
    }
}

impl Outbox {
    pub(crate) fn after(last_seq: Seq) -> Self {
        Self {
            last_seq,
            ..Self::default()
        }
    }

    pub(crate) fn last_seq(&self) -> Seq {
        self.last_seq
    }

    pub(crate) fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// Why the last record was not taken.
    pub(crate) fn take_refusal(&mut self) -> Unavailable {
        let unknown = || Unavailable::Faulted("the journal took no record".to_owned());
        self.refused.take().unwrap_or_else(unknown)
    }

    /// Hands over what waits, as far as there is room.
    pub(crate) fn flush(&mut self, journal: &Journal) -> Result<(), Unavailable> {
        while let Some((tag, payload)) = self.backlog.front() {
            match journal.append(Class::Settle, *tag, payload) {
                Ok(_) => self.backlog.pop_front(),
                Err(error) => return Err(unavailable(error)),
            };
        }
        Ok(())
    }
}

fn unavailable(error: AppendError) -> Unavailable {
    match error {
        AppendError::Full | AppendError::Busy => Unavailable::Full(error),
        other => Unavailable::Faulted(other.to_string()),
    }
}

impl Sink<'_> {
    fn append(&mut self, journal: &Journal, record: &Record) -> Result<(), Unavailable> {
        let class = class_of(record);
        let outbox = &mut *self.outbox;
        outbox.buffer.clear();
        record.encode(&mut outbox.buffer);
        let sent = match outbox.flush(journal) {
            Ok(()) => journal
                .append(class, record.tag(), &outbox.buffer)
                .map_err(unavailable),
            Err(why) => Err(why),
        };
        match sent {
            Ok(seq) => {
                outbox.last_seq = seq;
                Ok(())
            }
            Err(Unavailable::Full(_)) if class == Class::Settle => {
                let payload = outbox.buffer.clone();
                outbox.backlog.push_back((record.tag(), payload));
                // The journal numbers without holes, and nobody else appends to it.
                outbox.last_seq += 1;
                Ok(())
            }
            Err(why) => Err(why),
        }
    }
}

impl RecordSink for Sink<'_> {
    fn push(&mut self, record: &Record) -> Result<(), NotTaken> {
        let Some(journal) = self.journal else {
            self.outbox.last_seq += 1;
            return Ok(());
        };
        self.append(journal, record).map_err(|why| {
            self.outbox.refused = Some(why);
            NotTaken
        })
    }
}
