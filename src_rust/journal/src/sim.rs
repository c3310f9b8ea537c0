//! A disk that can lose power: it remembers what was flushed and what only seemed to be there.
//!
//! Two views of every file: what a running process reads, and what is on the platter. Unflushed
//! 512-byte sectors, lengths and names may each survive a power cut or not, on their own. A flush
//! that fails drops what it was given, and the next one succeeds: that is how Linux does it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;

/// The unit that is written whole or not at all.
pub const SECTOR: usize = 512;

/// A small seeded generator (SplitMix64), so that a failing schedule can be run again.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that always gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What may be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Making a file.
    Create,
    /// Writing bytes.
    Write,
    /// Flushing a file.
    Sync,
    /// Flushing the folder.
    SyncDir,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Cutting a file.
    SetLen,
}

/// A failure to come: after `after` more operations of that kind, `times` of them fail.
#[derive(Clone, Debug)]
struct Failure {
    operation: Operation,
    after: u64,
    times: u64,
    errno: i32,
}

#[derive(Clone, Default)]
struct Inode {
    /// What a process reads.
    seen: Vec<u8>,
    /// What is on the platter, as far as it was flushed.
    kept: Vec<u8>,
    /// Unflushed sectors, with every content they had since the last flush.
    dirty: BTreeMap<usize, Vec<[u8; SECTOR]>>,
}

#[derive(Clone)]
enum NameChange {
    Link(String, usize),
    Rename(String, String),
    Unlink(String),
}

/// The whole state of a disk.
#[derive(Clone, Default)]
struct Platter {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    kept_names: BTreeMap<String, usize>,
    unflushed: Vec<NameChange>,
}

/// A moment at which the power could have gone, and what had been acknowledged by then.
#[derive(Clone)]
pub struct Moment {
    platter: Platter,
    /// The acknowledged sequence when it was caught.
    pub acknowledged: u64,
}

struct Inner {
    platter: Platter,
    random: Random,
    failures: Vec<Failure>,
    capacity: u64,
    /// Catch the moment before one in so many operations; 0 for never.
    catch_one_in: u64,
    acknowledged: Option<Arc<AtomicU64>>,
    moments: Vec<Moment>,
    /// Operations left before the power goes and everything fails; for crashes in recovery.
    power: Option<u64>,
    locked: bool,
}

/// A simulated folder. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

/// An open file of a [`SimDisk`].
pub struct SimFile {
    disk: SimDisk,
    inode: usize,
}

/// Held while a [`SimDisk`] is locked.
pub struct SimLock(SimDisk);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.with(|inner| inner.locked = false);
    }
}

impl SimDisk {
    /// An empty disk; everything random in it comes from the seed.
    pub fn new(seed: u64) -> Self {
        Self::of(Platter::default(), seed)
    }

    /// A disk as it is found after the power went at a moment.
    pub fn after_power_cut(moment: &Moment, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self::of(moment.platter.cut(&mut random), random.any())
    }

    fn of(platter: Platter, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            platter,
            random: Random::new(seed),
            failures: Vec::new(),
            capacity: u64::MAX,
            catch_one_in: 0,
            acknowledged: None,
            moments: Vec::new(),
            power: None,
            locked: false,
        })))
    }

    fn with<T>(&self, run: impl FnOnce(&mut Inner) -> T) -> T {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Limits the bytes of all files together; what is there already stays.
    pub fn set_capacity(&self, bytes: u64) {
        self.with(|inner| inner.capacity = bytes);
    }

    /// Bytes of all files together.
    pub fn used(&self) -> u64 {
        self.with(|inner| inner.platter.used())
    }

    /// After `after` more operations of a kind, makes `times` of them fail.
    pub fn fail(&self, operation: Operation, after: u64, times: u64, errno: i32) {
        self.with(|inner| {
            inner.failures.push(Failure {
                operation,
                after,
                times,
                errno,
            })
        });
    }

    /// Lets nothing fail any more, and gives the power back.
    pub fn heal(&self) {
        self.with(|inner| {
            inner.failures.clear();
            inner.power = None;
        });
    }

    /// Lets the power go after so many operations: all later ones fail.
    pub fn power_for(&self, operations: u64) {
        self.with(|inner| inner.power = Some(operations));
    }

    /// Catches a moment before one in so many operations, with what `acknowledged` says then.
    pub fn catch(&self, one_in: u64, acknowledged: Arc<AtomicU64>) {
        self.with(|inner| {
            inner.catch_one_in = one_in;
            inner.acknowledged = Some(acknowledged);
        });
    }

    /// The moments caught so far, taken out.
    pub fn take_moments(&self) -> Vec<Moment> {
        self.with(|inner| std::mem::take(&mut inner.moments))
    }

    /// This moment.
    pub fn moment(&self) -> Moment {
        self.with(|inner| inner.moment())
    }

    /// What a process reads in a file, or `None` if it is not there.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.with(|inner| {
            let inode = *inner.platter.names.get(name)?;
            Some(inner.platter.inodes[inode].seen.clone())
        })
    }

    /// Puts a file on the platter, flushed, whatever was there.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.with(|inner| {
            let seen = bytes.to_vec();
            let inode = Inode {
                kept: seen.clone(),
                seen,
                dirty: BTreeMap::new(),
            };
            inner.platter.inodes.push(inode);
            let number = inner.platter.inodes.len() - 1;
            inner.platter.names.insert(name.to_owned(), number);
            inner.platter.kept_names.insert(name.to_owned(), number);
        });
    }
}

impl Inner {
    fn moment(&self) -> Moment {
        let acknowledged = self
            .acknowledged
            .as_ref()
            .map_or(0, |a| a.load(Ordering::Acquire));
        Moment {
            platter: self.platter.clone(),
            acknowledged,
        }
    }

    /// Counts an operation: catches the moment, cuts the power, and fails it if it is its turn.
    fn before(&mut self, operation: Operation) -> io::Result<()> {
        if self.catch_one_in > 0 && self.random.one_in(self.catch_one_in) {
            let moment = self.moment();
            self.moments.push(moment);
        }
        match &mut self.power {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        for failure in self
            .failures
            .iter_mut()
            .filter(|f| f.operation == operation)
        {
            if failure.after > 0 {
                failure.after -= 1;
            } else if failure.times > 0 {
                failure.times -= 1;
                return Err(io::Error::from_raw_os_error(failure.errno));
            }
        }
        Ok(())
    }
}

impl Platter {
    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|inode| self.inodes[*inode].seen.len() as u64)
            .sum()
    }

    fn inode_of(&self, name: &str) -> io::Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// What is left when the power goes.
    fn cut(&self, random: &mut Random) -> Self {
        let mut names = self.kept_names.clone();
        for change in self.unflushed.iter().filter(|_| random.one_in(2)) {
            change.apply(&mut names);
        }
        let inodes = self.inodes.iter().map(|inode| inode.cut(random)).collect();
        Self {
            inodes,
            kept_names: names.clone(),
            names,
            unflushed: Vec::new(),
        }
    }
}

impl NameChange {
    /// Changes the names; a change whose ground was lost is lost with it.
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

impl Inode {
    fn len_after_cut(&self, random: &mut Random) -> usize {
        if random.one_in(2) {
            self.seen.len()
        } else {
            self.kept.len()
        }
    }

    /// Each dirty sector keeps its flushed content or takes one it had since.
    fn cut(&self, random: &mut Random) -> Self {
        let mut kept = self.kept.clone();
        kept.resize(self.len_after_cut(random), 0);
        // Now and then all or nothing, else each sector on its own.
        let (none, all) = (random.one_in(8), random.one_in(8));
        for (sector, contents) in &self.dirty {
            if all || (!none && random.one_in(2)) {
                let newest = contents.len() - 1;
                let pick = if all {
                    newest
                } else {
                    random.below(contents.len() as u64) as usize
                };
                put_sector(&mut kept, *sector, &contents[pick]);
            }
        }
        Self {
            seen: kept.clone(),
            kept,
            dirty: BTreeMap::new(),
        }
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        if bytes.is_empty() {
            return;
        }
        for sector in offset / SECTOR..=(end - 1) / SECTOR {
            let content = sector_of(&self.seen, sector);
            self.dirty.entry(sector).or_default().push(content);
        }
    }

    /// Puts what is dirty on the platter, and only that: what an earlier flush lost stays lost.
    fn flush(&mut self) {
        self.kept.resize(self.seen.len(), 0);
        for (sector, contents) in std::mem::take(&mut self.dirty) {
            put_sector(&mut self.kept, sector, &contents[contents.len() - 1]);
        }
    }

    /// A flush that fails: some sectors made it, the others are forgotten, all count as clean.
    fn lose(&mut self, random: &mut Random) {
        *self = Self {
            seen: self.seen.clone(),
            ..self.cut(random)
        };
    }

    fn set_len(&mut self, bytes: usize) {
        self.seen.resize(bytes, 0);
        self.dirty.retain(|sector, _| sector * SECTOR < bytes);
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> [u8; SECTOR] {
    let start = sector * SECTOR;
    let end = bytes.len().min(start + SECTOR);
    let mut content = [0; SECTOR];
    content[..end - start].copy_from_slice(&bytes[start..end]);
    content
}

/// Writes a sector as far as the file reaches.
fn put_sector(bytes: &mut [u8], sector: usize, content: &[u8; SECTOR]) {
    let start = sector * SECTOR;
    let end = bytes.len().min(start + SECTOR);
    if start < end {
        bytes[start..end].copy_from_slice(&content[..end - start]);
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn lock(&self) -> Result<SimLock, OpenError> {
        if self.with(|inner| std::mem::replace(&mut inner.locked, true)) {
            return Err(OpenError::Locked {
                dir: "simulated".into(),
                pid: None,
            });
        }
        Ok(SimLock(self.clone()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|inner| inner.platter.names.keys().cloned().collect()))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<SimFile> {
        let inode = self.with(|inner| {
            inner.before(Operation::Create)?;
            if inner.platter.names.contains_key(name) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            if inner.platter.used().saturating_add(bytes) > inner.capacity {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            let inode = inner.platter.inodes.len();
            let mut file = Inode::default();
            file.write(&vec![0; bytes as usize], 0);
            inner.platter.inodes.push(file);
            inner.platter.names.insert(name.to_owned(), inode);
            inner
                .platter
                .unflushed
                .push(NameChange::Link(name.to_owned(), inode));
            Ok(inode)
        })?;
        Ok(SimFile {
            disk: self.clone(),
            inode,
        })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let inode = self.with(|inner| inner.platter.inode_of(name))?;
        Ok(SimFile {
            disk: self.clone(),
            inode,
        })
    }

    fn open_to_read(&self, name: &str) -> io::Result<SimFile> {
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|inner| {
            inner.before(Operation::Rename)?;
            inner.platter.inode_of(from)?;
            let change = NameChange::Rename(from.to_owned(), to.to_owned());
            change.apply(&mut inner.platter.names);
            inner.platter.unflushed.push(change);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|inner| {
            inner.platter.inode_of(name)?;
            inner.before(Operation::Remove)?;
            let change = NameChange::Unlink(name.to_owned());
            change.apply(&mut inner.platter.names);
            inner.platter.unflushed.push(change);
            Ok(())
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.with(|inner| {
            inner.before(Operation::SyncDir)?;
            inner.platter.kept_names = inner.platter.names.clone();
            inner.platter.unflushed.clear();
            Ok(())
        })
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(self.with(|inner| inner.capacity.saturating_sub(inner.platter.used())))
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self
            .disk
            .with(|inner| inner.platter.inodes[self.inode].seen.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.with(|inner| {
            let start = offset as usize;
            let seen = &inner.platter.inodes[self.inode].seen;
            let found = seen.get(start..start + buffer.len());
            let found = found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            buffer.copy_from_slice(found);
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.with(|inner| {
            let turn = inner.before(Operation::Write);
            // A write that fails may have written some.
            let written = match turn {
                Ok(()) => bytes.len(),
                Err(_) => inner.random.below(bytes.len() as u64 + 1) as usize,
            };
            inner.platter.inodes[self.inode].write(&bytes[..written], offset as usize);
            turn
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.with(|inner| {
            inner.before(Operation::SetLen)?;
            inner.platter.inodes[self.inode].set_len(bytes as usize);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.with(|inner| {
            let turn = inner.before(Operation::Sync);
            let file = &mut inner.platter.inodes[self.inode];
            match &turn {
                Ok(()) => file.flush(),
                Err(_) => file.lose(&mut inner.random),
            }
            turn
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_after(moment: &Moment, seed: u64) -> Option<Vec<u8>> {
        SimDisk::after_power_cut(moment, seed).read("a")
    }

    #[test]
    fn flushed_bytes_and_names_survive_and_unflushed_sectors_may_not() {
        let disk = SimDisk::new(1);
        let file = disk.create("a", 4 * SECTOR as u64).unwrap();
        file.write_at(&[1; 4 * SECTOR], 0).unwrap();
        let unnamed = disk.moment();
        file.sync().unwrap();
        disk.sync_dir().unwrap();
        let flushed = disk.moment();
        file.write_at(&[2; 2 * SECTOR], SECTOR as u64).unwrap();
        let torn = disk.moment();
        assert!((0..50).any(|seed| file_after(&unnamed, seed).is_none()));
        let mut seen = [0_u32; 4];
        for seed in 0..50 {
            assert_eq!(file_after(&flushed, seed).unwrap(), vec![1; 4 * SECTOR]);
            let bytes = file_after(&torn, seed).unwrap();
            assert!(bytes
                .chunks(SECTOR)
                .all(|sector| sector.iter().all(|b| *b == sector[0])));
            seen[usize::from(bytes[SECTOR] - 1) + 2 * usize::from(bytes[2 * SECTOR] - 1)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    }

    #[test]
    fn a_failed_flush_forgets_and_the_next_one_says_yes() {
        let lost = (0..40).filter(|seed| {
            let disk = SimDisk::new(*seed);
            let file = disk.create("a", SECTOR as u64).unwrap();
            file.sync().unwrap();
            disk.sync_dir().unwrap();
            disk.fail(Operation::Sync, 0, 1, 5);
            file.write_at(&[9; SECTOR], 0).unwrap();
            assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
            file.sync().unwrap();
            assert_eq!(disk.read("a").unwrap(), vec![9; SECTOR]);
            file_after(&disk.moment(), 0).unwrap() == vec![0; SECTOR]
        });
        assert!((5..35).contains(&lost.count()));
    }

    #[test]
    fn capacity_failures_and_power_are_injected() {
        let disk = SimDisk::new(3);
        disk.set_capacity(1000);
        assert!(disk.create("a", 1001).is_err());
        let file = disk.create("a", 1000).unwrap();
        assert_eq!((disk.used(), disk.free_bytes()), (1000, Some(0)));
        disk.fail(Operation::Rename, 1, 1, 30);
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.rename("b", "a").unwrap_err().raw_os_error(), Some(30));
        disk.rename("b", "a").unwrap();
        disk.power_for(1);
        file.set_len(10).unwrap();
        assert!(file.sync().is_err());
        assert!(disk.remove("a").is_err());
    }
}
