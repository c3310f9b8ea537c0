//! Whose limit it is. Names are kept once, however many counters share them.

use std::collections::HashMap;
use std::sync::Arc;

/// What kind of thing a limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ScopeKind {
    /// Everything that passes.
    Global = 0,
    /// An organisation.
    Organisation = 1,
    /// A workspace.
    Workspace = 2,
    /// A team.
    Team = 3,
    /// A user; how many there may be is capped.
    User = 4,
    /// A customer plan.
    Tier = 5,
    /// A declared tag, as `name=value`.
    Tag = 6,
    /// A run of an agent; how many may live at once is capped.
    Run = 7,
}

impl ScopeKind {
    /// Every kind, in the order of its code.
    pub const ALL: [Self; 8] = [
        Self::Global,
        Self::Organisation,
        Self::Workspace,
        Self::Team,
        Self::User,
        Self::Tier,
        Self::Tag,
        Self::Run,
    ];

    /// The kind with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The word for it in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Organisation => "organization",
            Self::Workspace => "workspace",
            Self::Team => "team",
            Self::User => "user",
            Self::Tier => "tier",
            Self::Tag => "tag",
            Self::Run => "run",
        }
    }
}

#[derive(Debug)]
struct Name {
    kind: ScopeKind,
    id: Arc<str>,
    uses: u32,
}

/// The names in use, each counted by how many counters and rates use it.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    names: Vec<Option<Name>>,
    free: Vec<u32>,
    by_id: HashMap<(ScopeKind, Arc<str>), u32>,
    of_kind: [usize; ScopeKind::ALL.len()],
}

impl Scopes {
    pub(crate) fn find(&self, kind: ScopeKind, id: &Arc<str>) -> Option<u32> {
        self.by_id.get(&(kind, Arc::clone(id))).copied()
    }

    /// How many names of this kind are in use.
    pub(crate) fn count(&self, kind: ScopeKind) -> usize {
        self.of_kind[kind as usize]
    }

    pub(crate) fn get(&self, number: u32) -> Option<(ScopeKind, &Arc<str>)> {
        let name = self.names.get(number as usize)?.as_ref()?;
        Some((name.kind, &name.id))
    }

    /// The name's number; it is in use once more. `None` when there are no more numbers.
    pub(crate) fn acquire(&mut self, kind: ScopeKind, id: &Arc<str>) -> Option<u32> {
        if let Some(number) = self.find(kind, id) {
            let name = self.names.get_mut(number as usize)?.as_mut()?;
            name.uses = name.uses.checked_add(1)?;
            return Some(number);
        }
        let name = Some(Name {
            kind,
            id: Arc::clone(id),
            uses: 1,
        });
        let number = match self.free.pop() {
            Some(number) => {
                *self.names.get_mut(number as usize)? = name;
                number
            }
            None => {
                self.names.push(name);
                u32::try_from(self.names.len() - 1).ok()?
            }
        };
        self.by_id.insert((kind, Arc::clone(id)), number);
        self.of_kind[kind as usize] += 1;
        Some(number)
    }

    /// The name is in use once less, and forgotten if that was the last.
    pub(crate) fn release(&mut self, number: u32) {
        let Some(place) = self.names.get_mut(number as usize) else {
            return;
        };
        let Some(name) = place else { return };
        name.uses -= 1;
        if name.uses > 0 {
            return;
        }
        let kind = name.kind;
        self.by_id.remove(&(kind, Arc::clone(&name.id)));
        self.of_kind[kind as usize] -= 1;
        *place = None;
        self.free.push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lives_as_long_as_its_users() {
        let mut scopes = Scopes::default();
        let id: Arc<str> = "u".into();
        let first = scopes.acquire(ScopeKind::User, &id).unwrap();
        assert_eq!(scopes.acquire(ScopeKind::User, &id), Some(first));
        assert_ne!(
            scopes.acquire(ScopeKind::Run, &id),
            Some(first),
            "kinds are apart"
        );
        assert_eq!(scopes.count(ScopeKind::User), 1);
        scopes.release(first);
        assert_eq!(
            scopes.get(first).map(|(kind, _)| kind),
            Some(ScopeKind::User)
        );
        scopes.release(first);
        scopes.release(first);
        assert_eq!(
            (
                scopes.find(ScopeKind::User, &id),
                scopes.count(ScopeKind::User)
            ),
            (None, 0)
        );
        assert_eq!(
            scopes.acquire(ScopeKind::Team, &id),
            Some(first),
            "the number is used again"
        );
    }

    #[test]
    fn kinds_have_codes_and_names() {
        for (code, kind) in (0..).zip(ScopeKind::ALL) {
            assert_eq!(ScopeKind::from_code(code), Some(kind));
            assert!(!kind.name().is_empty());
        }
        assert_eq!(ScopeKind::from_code(8), None);
    }
}
