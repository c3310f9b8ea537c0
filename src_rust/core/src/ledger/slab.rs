//! Places that are named by index and generation, so that a stale name is noticed.

use std::collections::BTreeSet;

/// Names one counter or one rate while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle {
    /// Its place.
    pub index: u32,
    /// Differs from that of everything that was ever in that place.
    pub generation: u32,
}

impl Handle {
    /// One number for both, for callers that keep plain integers.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The handle that [`Handle::to_bits`] was taken of.
    pub fn from_bits(bits: u64) -> Self {
        let low = bits & u64::from(u32::MAX);
        Self {
            index: low as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// A table whose next free places depend on its content alone, so that a replay finds the same.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<(u32, T)>>,
    free: BTreeSet<u32>,
    pub(crate) next_generation: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: BTreeSet::new(),
            next_generation: 1,
        }
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The handle that the `nth` thing to be inserted from now will have (0 is the next), or
    /// `None` when there are no more names.
    pub(crate) fn upcoming(&self, nth: u32) -> Option<Handle> {
        let place = usize::try_from(nth).ok()?;
        let index = match self.free.iter().nth(place) {
            Some(index) => *index,
            None => u32::try_from(self.places.len() + place - self.free.len()).ok()?,
        };
        Some(Handle {
            index,
            generation: self.next_generation.checked_add(nth)?,
        })
    }

    /// Puts a thing where its handle says: into a free place, or the next new one. `None` if
    /// that place is taken or further off.
    pub(crate) fn insert(&mut self, handle: Handle, thing: T) -> Option<()> {
        (handle.index <= self.end()).then_some(())?;
        self.put_back(handle, thing)
    }

    /// Puts a thing where its handle says, however far off. `None` if that place is taken.
    pub(crate) fn put_back(&mut self, handle: Handle, thing: T) -> Option<()> {
        let index = usize::try_from(handle.index).ok()?;
        for skipped in self.places.len()..=index {
            self.places.push(None);
            self.free.insert(u32::try_from(skipped).ok()?);
        }
        if !self.free.remove(&handle.index) {
            return None;
        }
        *self.places.get_mut(index)? = Some((handle.generation, thing));
        let after = handle.generation.saturating_add(1);
        self.next_generation = self.next_generation.max(after);
        Some(())
    }

    pub(crate) fn remove(&mut self, handle: Handle) -> Option<T> {
        self.get(handle)?;
        let place = self.places.get_mut(usize::try_from(handle.index).ok()?)?;
        let (_, thing) = place.take()?;
        self.free.insert(handle.index);
        Some(thing)
    }

    pub(crate) fn get(&self, handle: Handle) -> Option<&T> {
        match self.places.get(handle.index as usize)? {
            Some((generation, thing)) if *generation == handle.generation => Some(thing),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        match self.places.get_mut(handle.index as usize)? {
            Some((generation, thing)) if *generation == handle.generation => Some(thing),
            _ => None,
        }
    }

    /// What is in a place now, whatever its generation.
    pub(crate) fn at(&self, index: u32) -> Option<(Handle, &T)> {
        let (generation, thing) = self.places.get(index as usize)?.as_ref()?;
        Some((
            Handle {
                index,
                generation: *generation,
            },
            thing,
        ))
    }

    /// One more than the last place that was ever used.
    pub(crate) fn end(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        (0..self.end()).filter_map(|index| self.at(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_handle_finds_nothing() {
        let mut slab = Slab::default();
        let first = slab.upcoming(0).unwrap();
        slab.insert(first, 'a').unwrap();
        assert_eq!(slab.remove(first), Some('a'));
        assert_eq!(slab.remove(first), None);
        let second = slab.upcoming(0).unwrap();
        assert_eq!(second.index, first.index);
        slab.insert(second, 'b').unwrap();
        assert_eq!((slab.get(first), slab.get(second)), (None, Some(&'b')));
        assert_eq!(slab.get_mut(first), None);
        assert!(slab.insert(second, 'c').is_none(), "taken");
        assert_eq!(Handle::from_bits(second.to_bits()), second);
    }

    #[test]
    fn upcoming_places_come_true() {
        let mut slab = Slab::default();
        for nth in 0..4 {
            slab.insert(slab.upcoming(0).unwrap(), nth).unwrap();
        }
        for index in [2, 0] {
            let (handle, _) = slab.at(index).unwrap();
            slab.remove(handle);
        }
        let foretold: Vec<Handle> = (0..4).map(|nth| slab.upcoming(nth).unwrap()).collect();
        assert_eq!(
            foretold
                .iter()
                .map(|handle| handle.index)
                .collect::<Vec<_>>(),
            [0, 2, 4, 5]
        );
        for handle in &foretold {
            assert_eq!(slab.upcoming(0), Some(*handle));
            slab.insert(*handle, 9).unwrap();
        }
        assert_eq!((slab.len(), slab.end()), (6, 6));
    }

    #[test]
    fn places_may_be_filled_in_any_order() {
        let mut slab = Slab::default();
        let far = Handle {
            index: 3,
            generation: 9,
        };
        assert!(slab.insert(far, 'd').is_none(), "too far off for a new one");
        slab.put_back(far, 'd').unwrap();
        assert_eq!(
            slab.upcoming(0),
            Some(Handle {
                index: 0,
                generation: 10
            })
        );
        assert_eq!(slab.len(), 1);
        assert_eq!(slab.iter().count(), 1);
    }
}
