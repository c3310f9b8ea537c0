//! The checkpoint: four tables and a sequence in one LMDB environment.
//!
//! Default flags only: a commit is on the disk when it returns, and the sequence is in the same
//! transaction as the state it speaks of.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use heed::types::Bytes;
use heed::{CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, MdbError};

use crate::disk::{make_dir, sync_dir};
use crate::error::{is_no_space, CheckpointError};
use crate::Seq;

/// The longest key that LMDB takes.
const KEY_BYTES_MAX: usize = 511;
/// Entries read in one transaction while a table is walked.
const PAGE_ENTRIES: usize = 1024;
/// The journal's own table, beside the four.
const OWN_TABLE: &str = "journal";
const SEQ_KEY: &[u8] = b"checkpoint_seq";
const DATA_FILE: &str = "data.mdb";

type Db = Database<'static, Bytes, Bytes>;

/// A table of the checkpoint: keys of 1 to 511 bytes, values of any length, ordered by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Limits in their windows.
    Counters,
    /// Open holds.
    Holds,
    /// Whatever there is one of.
    Meta,
    /// Totals per day.
    Days,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 4] = [Self::Counters, Self::Holds, Self::Meta, Self::Days];

    /// Its name in the environment.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counters => "counters",
            Self::Holds => "holds",
            Self::Meta => "meta",
            Self::Days => "days",
        }
    }
}

/// What a checkpoint changes. Puts come first, then deletes.
#[derive(Clone, Debug, Default)]
pub struct Changes<'a> {
    /// Table, key, value.
    pub puts: Vec<(Table, &'a [u8], &'a [u8])>,
    /// Table, key; it need not be there.
    pub deletes: Vec<(Table, &'a [u8])>,
}

/// An open environment.
pub(crate) struct Store {
    env: Env,
    tables: [Db; 4],
    own: Db,
}

impl Store {
    /// Opens the environment in a folder, making it if it is not there.
    ///
    /// The caller holds the state's lock, so no other process writes here.
    pub(crate) fn open(dir: &Path, map_bytes: usize) -> Result<Self, CheckpointError> {
        make_dir(dir).map_err(from_io)?;
        let env = open_env(dir, map_bytes, EnvFlags::empty())?;
        let wtxn = env.write_txn().map_err(from_heed)?;
        let opened = env
            .create_databases_and_commit(wtxn, |opener, wtxn| {
                let own = opener.create_database::<Bytes, Bytes>(wtxn, Some(OWN_TABLE))?;
                let mut create = |table: Table| opener.create_database(wtxn, Some(table.name()));
                let [a, b, c, d] = Table::ALL;
                let tables = (own, create(a)?, create(b)?, create(c)?, create(d)?);
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(tables))
            })
            .map_err(from_heed)?;
        let (own, a, b, c, d) = opened.commit().ok_or_else(no_tables)?;
        // A commit read from the page cache of a process that died may not be on the disk yet,
        // and segments are removed on the word of it.
        env.force_sync().map_err(from_heed)?;
        sync_dir(dir).map_err(from_io)?;
        Ok(Self {
            env,
            tables: [a, b, c, d],
            own,
        })
    }

    /// Opens an environment that nobody writes, changing nothing in it.
    pub(crate) fn open_read_only(dir: &Path, map_bytes: usize) -> Result<Self, CheckpointError> {
        let env = open_env(dir, map_bytes, EnvFlags::READ_ONLY)?;
        let rtxn = env.read_txn().map_err(from_heed)?;
        let opened = env
            .open_databases_and_commit(rtxn, |opener, rtxn| {
                let open = |name| opener.open_database::<Bytes, Bytes>(rtxn, Some(name));
                let [a, b, c, d] = Table::ALL.map(Table::name);
                let tables = (open(OWN_TABLE)?, open(a)?, open(b)?, open(c)?, open(d)?);
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(tables))
            })
            .map_err(from_heed)?;
        match opened.commit() {
            Some((Some(own), Some(a), Some(b), Some(c), Some(d))) => Ok(Self {
                env,
                tables: [a, b, c, d],
                own,
            }),
            _ => Err(no_tables()),
        }
    }

    /// The sequence up to which the tables speak; 0 before the first checkpoint.
    pub(crate) fn seq(&self) -> Result<Seq, CheckpointError> {
        let rtxn = self.env.read_txn().map_err(from_heed)?;
        let Some(value) = self.own.get(&rtxn, SEQ_KEY).map_err(from_heed)? else {
            return Ok(0);
        };
        let bytes = value
            .try_into()
            .map_err(|_| CheckpointError::Damaged("its sequence is not 8 bytes long".to_owned()))?;
        Ok(Seq::from_le_bytes(bytes))
    }

    /// Writes changes and the sequence they bring the tables to, all or nothing.
    pub(crate) fn write(&self, seq: Seq, changes: &Changes<'_>) -> Result<(), CheckpointError> {
        check_keys(changes)?;
        let mut wtxn = self.env.write_txn().map_err(from_heed)?;
        for (table, key, value) in &changes.puts {
            self.table(*table)
                .put(&mut wtxn, key, value)
                .map_err(from_heed)?;
        }
        for (table, key) in &changes.deletes {
            self.table(*table)
                .delete(&mut wtxn, key)
                .map_err(from_heed)?;
        }
        self.own
            .put(&mut wtxn, SEQ_KEY, &seq.to_le_bytes())
            .map_err(from_heed)?;
        wtxn.commit().map_err(from_heed)
    }

    /// The value of a key.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        let rtxn = self.env.read_txn().map_err(from_heed)?;
        let value = self.table(table).get(&rtxn, key).map_err(from_heed)?;
        Ok(value.map(<[u8]>::to_vec))
    }

    /// A page of a table: the entries behind a key, in order.
    fn page(&self, table: Table, after: Option<&[u8]>) -> Result<Vec<Entry>, CheckpointError> {
        let rtxn = self.env.read_txn().map_err(from_heed)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Unbounded);
        let entries = self.table(table).range(&rtxn, &range).map_err(from_heed)?;
        let owned = entries.take(PAGE_ENTRIES).map(|entry| {
            let (key, value) = entry.map_err(from_heed)?;
            Ok((key.to_vec(), value.to_vec()))
        });
        owned.collect()
    }

    /// Copies the environment as it is at one instant, flushed, into a folder.
    pub(crate) fn copy_to(&self, dir: &Path) -> Result<(), CheckpointError> {
        make_dir(dir).map_err(from_io)?;
        let path = dir.join(DATA_FILE);
        let file = self
            .env
            .copy_to_path(path, CompactionOption::Enabled)
            .map_err(from_heed)?;
        file.sync_all()
            .and_then(|()| sync_dir(dir))
            .map_err(from_io)
    }

    fn table(&self, table: Table) -> &Db {
        &self.tables[table as usize]
    }
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// The entries of a table in order of their keys, read a page at a time.
///
/// Each page is one instant; drain it before the next checkpoint to see one state.
pub struct Entries {
    store: Arc<Store>,
    table: Table,
    page: std::vec::IntoIter<Entry>,
    after: Option<Vec<u8>>,
    done: bool,
}

impl Entries {
    pub(crate) fn new(store: Arc<Store>, table: Table) -> Self {
        Self {
            store,
            table,
            page: Vec::new().into_iter(),
            after: None,
            done: false,
        }
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, CheckpointError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0 && !self.done {
            match self.store.page(self.table, self.after.as_deref()) {
                Ok(page) => {
                    self.done = page.len() < PAGE_ENTRIES;
                    self.after = page.last().map(|(key, _)| key.clone());
                    self.page = page.into_iter();
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        self.page.next().map(Ok)
    }
}

fn check_keys(changes: &Changes<'_>) -> Result<(), CheckpointError> {
    let puts = changes.puts.iter().map(|(_, key, _)| key.len());
    let lengths = puts.chain(changes.deletes.iter().map(|(_, key)| key.len()));
    for bytes in lengths {
        if bytes == 0 || bytes > KEY_BYTES_MAX {
            return Err(CheckpointError::BadKey { bytes });
        }
    }
    Ok(())
}

/// Opens an environment.
#[allow(unsafe_code)]
fn open_env(dir: &Path, map_bytes: usize, flags: EnvFlags) -> Result<Env, CheckpointError> {
    let mut options = EnvOpenOptions::new();
    options
        .map_size(map_bytes)
        .max_dbs(Table::ALL.len() as u32 + 1);
    // SAFETY: `flags` is empty or READ_ONLY (both callers are above): locking and syncing stay on.
    // The data file is changed through LMDB alone: its folder is private to the owner (0700), one
    // process holds the state's lock for as long as it writes, and nothing here maps or writes it
    // (`reach_last_page` only adds a hole behind its end, before the first transaction).
    let opened = unsafe { options.flags(flags).open(dir) };
    let env = opened.map_err(from_heed)?;
    let page_bytes = env.unnamed_database_stat().page_size as u64;
    let needed = (env.info().last_page_number as u64 + 1) * page_bytes;
    reach_last_page(&dir.join(DATA_FILE), needed)?;
    Ok(env)
}

/// Makes the data file as long as its header says.
///
/// LMDB may leave out pages at the end that were freed before they were written, so a shorter file
/// is not damage by itself. But it reads through a memory map, where a page behind the end would
/// kill the process; a hole there reads as zeros, which LMDB reports as corruption.
fn reach_last_page(path: &Path, needed: u64) -> Result<(), CheckpointError> {
    let length = fs::metadata(path).map_err(from_io)?.len();
    if length >= needed {
        return Ok(());
    }
    let extend = || File::options().write(true).open(path)?.set_len(needed);
    extend().map_err(|error| {
        let why = format!("it has {length} of {needed} bytes and cannot be checked here: {error}");
        CheckpointError::Damaged(why)
    })
}

fn no_tables() -> CheckpointError {
    CheckpointError::Damaged("its tables are not there".to_owned())
}

fn from_heed(error: heed::Error) -> CheckpointError {
    match error {
        heed::Error::Io(error) => from_io(error),
        heed::Error::Mdb(MdbError::MapFull) => CheckpointError::MapFull,
        heed::Error::Mdb(
            error @ (MdbError::Corrupted
            | MdbError::PageNotFound
            | MdbError::Invalid
            | MdbError::VersionMismatch),
        ) => CheckpointError::Damaged(error.to_string()),
        other => CheckpointError::Store(other.to_string()),
    }
}

fn from_io(error: io::Error) -> CheckpointError {
    if is_no_space(&error) {
        CheckpointError::NoSpace
    } else {
        CheckpointError::Io(error)
    }
}
