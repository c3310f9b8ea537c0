//! The journal with its checkpoint: what the daemon opens.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::disk::{make_dir, open_error, sync_dir, Disk, RealDisk, RealLock};
use crate::error::{AppendError, CheckpointError, Fault, OpenError, WaitError};
use crate::gap::{write_synced, Gap};
use crate::log::{retire, Log, Replay, Threads};
use crate::options::Options;
use crate::recover::{cut, Cut};
use crate::scan::{end_of, inspect, io_error, read_all, records, segment_name, Found};
use crate::shared::{Class, Live, Shared};
use crate::stats::Stats;
use crate::store::{Changes, Entries, Store, Table};
use crate::Seq;

/// The checkpoint's folder in the state folder.
const CHECKPOINT: &str = "checkpoint";

/// A state folder, held by this process: its journal takes records, its checkpoint takes state.
///
/// Every method can be called from any thread, and none of them waits for the disk but
/// [`checkpoint`](Self::checkpoint), [`backup`](Self::backup), [`wait_durable`](Self::wait_durable)
/// and [`close`](Self::close).
pub struct Journal {
    dir: PathBuf,
    shared: Arc<Shared<RealDisk>>,
    store: Arc<Store>,
    /// What `close` ends; `None` afterwards. Held during a checkpoint, so there is one at a time.
    held: Mutex<Option<Held>>,
}

/// What is given back at the end.
struct Held {
    threads: Threads,
    checkpoint_seq: Seq,
    _lock: RealLock,
}

/// What a state folder held when it was opened.
pub struct Recovery {
    /// The sequence up to which the snapshot speaks.
    pub checkpoint_seq: Seq,
    /// The last record there is.
    pub last_seq: Seq,
    /// How often this state was opened, this time included.
    pub incarnation: u64,
    /// Bytes of a last batch that never became durable and were cut off.
    pub torn_bytes: u64,
    /// Forgotten spend that the caller has to charge before calling [`Journal::gap_charged`].
    pub gap: Option<Gap>,
    /// The records after the checkpoint, in order.
    pub records: Replay<RealDisk>,
    store: Arc<Store>,
}

impl Recovery {
    /// The entries of a table as the checkpoint left them.
    pub fn snapshot(&self, table: Table) -> Entries {
        Entries::new(Arc::clone(&self.store), table)
    }
}

/// What a checkpoint did.
#[derive(Debug)]
pub struct Checkpointed {
    /// Why segments that are no longer needed could not be removed; the next start removes them.
    pub retire_error: Option<io::Error>,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The sequence of its checkpoint.
    pub checkpoint_seq: Seq,
    /// The last record in it.
    pub upto_seq: Seq,
}

/// What [`Journal::verify`] read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The sequence of the checkpoint.
    pub checkpoint_seq: Seq,
    /// The last record.
    pub last_seq: Seq,
    /// Records after the checkpoint.
    pub records: u64,
    /// Segments that a start would replay.
    pub segments: usize,
    /// Bytes that a start would cut off.
    pub torn_bytes: u64,
    /// Entries per table, in the order of [`Table::ALL`].
    pub entries: [u64; 4],
    /// The marker of a backup or a cut.
    pub gap: Option<Gap>,
}

impl Journal {
    /// Takes a state folder for this process, recovers it, and starts the journal's threads.
    ///
    /// # Errors
    /// [`OpenError`]; the folder is as it was.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Recovery), OpenError> {
        options.check()?;
        let disk = RealDisk::new(dir)?;
        let lock = disk.lock()?;
        let gap = read_gap(dir)?;
        if let Some(Gap { upto_seq, reason }) = gap.clone().filter(|_| !options.accept_gap) {
            return Err(OpenError::GapUncharged { upto_seq, reason });
        }
        let store = Arc::new(Store::open(&dir.join(CHECKPOINT), options.map_bytes)?);
        let checkpoint_seq = store.seq()?;
        let Log {
            shared,
            writer,
            preparer,
            replay,
            torn_bytes,
        } = Log::open(disk, options, checkpoint_seq)?;
        let recovery = Recovery {
            checkpoint_seq,
            last_seq: shared.durable_seq(),
            incarnation: shared.incarnation,
            torn_bytes,
            gap,
            records: replay,
            store: Arc::clone(&store),
        };
        let threads = Threads::start(writer, preparer).inspect_err(|_| shared.begin_close())?;
        if let Some(fault) = shared.fault_seen() {
            let error = io::Error::other(fault.message);
            return Err(io_error("prepare a spare segment", error));
        }
        let held = Mutex::new(Some(Held {
            threads,
            checkpoint_seq,
            _lock: lock,
        }));
        Ok((
            Self {
                dir: dir.to_owned(),
                shared,
                store,
                held,
            },
            recovery,
        ))
    }

    /// Queues a record and returns its sequence at once; it is durable when
    /// [`durable_seq`](Self::durable_seq) has reached it.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was queued.
    pub fn append(&self, class: Class, tag: u8, payload: &[u8]) -> Result<Seq, AppendError> {
        self.shared.append(class, &[(tag, payload)])
    }

    /// Queues records that become durable together or not at all. Returns the last sequence; the
    /// others are the ones before it.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was queued.
    pub fn append_group(&self, class: Class, records: &[(u8, &[u8])]) -> Result<Seq, AppendError> {
        self.shared.append(class, records)
    }

    /// The highest sequence that is on the disk, with all before it.
    pub fn durable_seq(&self) -> Seq {
        self.shared.durable_seq()
    }

    /// Waits until a sequence is durable.
    ///
    /// # Errors
    /// [`WaitError`]: a fault, the time, or the end of the journal.
    pub fn wait_durable(&self, seq: Seq, timeout: Duration) -> Result<(), WaitError> {
        self.shared.wait_durable(seq, timeout)
    }

    /// A descriptor that is readable after `durable_seq` rose or a fault was published.
    ///
    /// Watch it, call [`clear_event`](Self::clear_event), then look at
    /// [`durable_seq`](Self::durable_seq) and [`fault`](Self::fault). It lives as long as the
    /// journal does.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared.signal().fd()
    }

    /// Has what is queued written now, for somebody who waits by the descriptor.
    pub fn hurry(&self) {
        self.shared.hurry();
    }

    /// Makes the descriptor unreadable until the next event.
    pub fn clear_event(&self) {
        self.shared.signal().clear();
    }

    /// The failure that ended the journal, if one did. The process must exit.
    pub fn fault(&self) -> Option<Fault> {
        self.shared.fault_seen()
    }

    /// Figures of this instant.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// The sequence of the last checkpoint; `None` after [`close`](Self::close).
    pub fn checkpoint_seq(&self) -> Option<Seq> {
        self.held().as_ref().map(|held| held.checkpoint_seq)
    }

    /// Writes state as it is after a durable sequence, in one transaction with that sequence, then
    /// removes the segments it makes needless.
    ///
    /// A disk or map that is full leaves the last checkpoint and the journal as they are, to be
    /// tried again; any other failure of the store is published as a fault.
    ///
    /// # Errors
    /// [`CheckpointError`]; the previous checkpoint stands.
    pub fn checkpoint(
        &self,
        upto_seq: Seq,
        changes: &Changes<'_>,
    ) -> Result<Checkpointed, CheckpointError> {
        let mut held = self.held();
        let held = held.as_mut().ok_or(CheckpointError::Closed)?;
        self.check_seq(upto_seq, held.checkpoint_seq)?;
        self.store
            .write(upto_seq, changes)
            .inspect_err(|error| self.judge(error))?;
        held.checkpoint_seq = upto_seq;
        Ok(Checkpointed {
            retire_error: retire(&self.shared, upto_seq).err(),
        })
    }

    fn check_seq(&self, upto_seq: Seq, checkpoint_seq: Seq) -> Result<(), CheckpointError> {
        if let Some(fault) = self.fault() {
            return Err(CheckpointError::Faulted(fault));
        }
        let durable_seq = self.durable_seq();
        if upto_seq > durable_seq {
            return Err(CheckpointError::Ahead {
                upto_seq,
                durable_seq,
            });
        }
        if upto_seq < checkpoint_seq {
            return Err(CheckpointError::Behind {
                upto_seq,
                checkpoint_seq,
            });
        }
        Ok(())
    }

    /// Publishes a failure of the store as a fault, unless it passes.
    fn judge(&self, error: &CheckpointError) {
        use CheckpointError::{Damaged, Io, Store};
        match error {
            Io(error) => self.shared.fault("checkpoint", error),
            Damaged(_) | Store(_) => {
                self.shared
                    .fault("checkpoint", &io::Error::other(error.to_string()));
            }
            _ => {}
        }
    }

    /// The value of a key in the last checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`] of the store.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.store.get(table, key)
    }

    /// The entries of a table in the last checkpoint.
    pub fn entries(&self, table: Table) -> Entries {
        Entries::new(Arc::clone(&self.store), table)
    }

    /// Copies checkpoint and journal, consistent and flushed, into a folder that must not exist.
    ///
    /// The copy is marked: what is spent after it is not in it, so it opens only with
    /// [`Options::accept_gap`].
    ///
    /// # Errors
    /// [`CheckpointError`]; what was written so far is left beside `path`, ending in `.partial`.
    pub fn backup(&self, path: &Path) -> Result<Backup, CheckpointError> {
        if path.exists() {
            let error = io::Error::new(io::ErrorKind::AlreadyExists, "the backup is already there");
            return Err(CheckpointError::Io(error));
        }
        let partial = with_suffix(path, ".partial");
        let _pin = Pin::new(&self.shared);
        make_dir(&partial).map_err(CheckpointError::Io)?;
        self.store.copy_to(&partial.join(CHECKPOINT))?;
        let (upto_seq, live) = {
            let state = self.shared.lock();
            (
                self.shared.durable_seq(),
                state.live.iter().copied().collect::<Vec<_>>(),
            )
        };
        let copied = live
            .iter()
            .try_for_each(|live| self.copy_segment(live, upto_seq, &partial));
        let reason = "backup".to_owned();
        copied
            .and_then(|()| Gap { upto_seq, reason }.write(&partial))
            .and_then(|()| fs::rename(&partial, path))
            .and_then(|()| path.parent().map_or(Ok(()), sync_parent))
            .map_err(CheckpointError::Io)?;
        let copy = Store::open_read_only(&path.join(CHECKPOINT), self.shared.options.map_bytes)?;
        Ok(Backup {
            checkpoint_seq: copy.seq()?,
            upto_seq,
        })
    }

    /// Copies the frames of a segment up to a durable sequence.
    fn copy_segment(&self, live: &Live, upto_seq: Seq, to: &Path) -> io::Result<()> {
        let name = segment_name(live.index);
        let file = self.shared.disk.open_to_read(&name)?;
        let content = read_all(&file, file.metadata()?.len())?;
        write_synced(&to.join(name), &content[..end_of(&content, upto_seq)])
    }

    /// Says that the gap which [`Recovery::gap`] named is charged, and that the charge is durable.
    ///
    /// # Errors
    /// Those of the system; the folder may still be marked.
    pub fn gap_charged(&self) -> io::Result<()> {
        Gap::remove(&self.dir)
    }

    /// Writes what is queued, marks a clean end, and gives the folder back. Later calls do nothing.
    ///
    /// # Errors
    /// The fault, if the journal has one: then what was queued is not durable.
    pub fn close(&self) -> Result<(), Fault> {
        let mut held = self.held();
        self.shared.begin_close();
        if let Some(mut held) = held.take() {
            held.threads.join();
        }
        self.fault().map_or(Ok(()), Err)
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a whole state folder, or a backup, that nobody has open. Changes nothing.
    ///
    /// # Errors
    /// [`OpenError`] for the first thing that would keep the folder from opening, or that is
    /// damaged.
    pub fn verify(dir: &Path, options: &Options) -> Result<Verified, OpenError> {
        options.check()?;
        if !dir.is_dir() {
            let error = io::Error::from(io::ErrorKind::NotFound);
            return Err(io_error("find the state folder", error));
        }
        let disk = RealDisk::new(dir)?;
        let _lock = match disk.lock() {
            // Nobody can write where the lock file cannot be written.
            Err(OpenError::ReadOnly { .. }) => None,
            other => Some(other?),
        };
        let store = Arc::new(Store::open_read_only(
            &dir.join(CHECKPOINT),
            options.map_bytes,
        )?);
        let checkpoint_seq = store.seq()?;
        let Found { inspection, damage } = inspect(&disk, checkpoint_seq, &options.known())?;
        if let Some(damage) = damage {
            return Err(OpenError::Damaged(damage));
        }
        let mut read = 0;
        for segment in &inspection.segments {
            read += records(&disk, segment, checkpoint_seq)?.len() as u64;
        }
        Ok(Verified {
            checkpoint_seq,
            last_seq: inspection.last_seq(checkpoint_seq),
            records: read,
            segments: inspection.segments.len(),
            torn_bytes: inspection.torn_bytes,
            entries: count_entries(&store)?,
            gap: read_gap(dir)?,
        })
    }

    /// Accepts the loss of what [`OpenError::Damaged`] names: keeps the journal up to the damage,
    /// sets the rest aside under names that start with `cut-`, and marks the folder so that it
    /// opens only with [`Options::accept_gap`]. Returns `None` if there is no damage.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn cut(dir: &Path, options: &Options) -> Result<Option<Cut>, OpenError> {
        options.check()?;
        let disk = RealDisk::new(dir)?;
        let _lock = disk.lock()?;
        let floor = Store::open(&dir.join(CHECKPOINT), options.map_bytes)?.seq()?;
        cut(&disk, options, floor, |upto_seq| {
            Gap {
                upto_seq,
                reason: "cut".to_owned(),
            }
            .write(dir)
        })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Whoever wants to know of a fault calls `close`.
        let _ = self.close();
    }
}

/// Keeps segments from being retired while they are copied.
struct Pin<'a>(&'a Shared<RealDisk>);

impl<'a> Pin<'a> {
    fn new(shared: &'a Shared<RealDisk>) -> Self {
        shared.lock().pins += 1;
        Self(shared)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.lock().pins -= 1;
    }
}

/// Counts every entry, which reads every page of the tables.
fn count_entries(store: &Arc<Store>) -> Result<[u64; 4], OpenError> {
    let mut counts = [0; 4];
    for (count, table) in counts.iter_mut().zip(Table::ALL) {
        for entry in Entries::new(Arc::clone(store), table) {
            entry?;
            *count += 1;
        }
    }
    Ok(counts)
}

fn read_gap(dir: &Path) -> Result<Option<Gap>, OpenError> {
    Gap::read(dir).map_err(|error| open_error(dir, "read the gap marker", error))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Flushes the folder that a backup was renamed in; a bare name lies in the current one.
fn sync_parent(parent: &Path) -> io::Result<()> {
    sync_dir(if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    })
}
