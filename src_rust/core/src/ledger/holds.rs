//! Holds: the worst case of one request, until it is known what the request really cost.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::codec::{wire_code, wire_struct, DecodeError, Reader, Since, Wire};
use super::counters::Charge;
use super::error::LedgerError;
use super::rates::RateCharge;
use crate::window::{Stamp, DAY_NS};

/// How long an idempotency key names its hold.
pub const KEY_LIFETIME_NS: i64 = DAY_NS;

/// The caller's own name for a request, so that asking twice reserves once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Hash of the key and of whoever it belongs to.
    pub key: [u8; 16],
    /// Hash of the request's body.
    pub body: [u8; 16],
}

wire_struct!(Idempotency { key, body });

/// The longest part of a label, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;

/// What a hold is about, in the words of whoever asked: kept until the hold is resolved, so that
/// what a crash left open can be found in other people's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The parts, one behind the other: one allocation, shared by record and hold.
    text: Arc<str>,
    user_at: u16,
    owner_at: u16,
}

impl Label {
    /// The request's id, the user it is for, and the principal who may resolve it; each may be
    /// empty.
    pub fn new(request: &str, user: &str, owner: &str) -> Result<Self, LedgerError> {
        let parts = [request, user, owner];
        if parts.iter().any(|part| part.len() > LABEL_BYTES_MAX) {
            return Err(LedgerError::Invalid("a part of a label is too long"));
        }
        let user_at = request.len() as u16;
        Ok(Self {
            text: parts.concat().into(),
            user_at,
            owner_at: user_at + user.len() as u16,
        })
    }

    /// The request's id.
    pub fn request(&self) -> &str {
        &self.text[..usize::from(self.user_at)]
    }

    /// The user that it is for.
    pub fn user(&self) -> &str {
        &self.text[usize::from(self.user_at)..usize::from(self.owner_at)]
    }

    /// The principal who may resolve it.
    pub fn owner(&self) -> &str {
        &self.text[usize::from(self.owner_at)..]
    }
}

impl Wire for Label {
    fn put(&self, out: &mut Vec<u8>) {
        self.user_at.put(out);
        self.owner_at.put(out);
        (self.text.len() as u64).put(out);
        out.extend_from_slice(self.text.as_bytes());
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (user_at, owner_at) = (u16::get(from)?, u16::get(from)?);
        let text = from.text(3 * LABEL_BYTES_MAX)?;
        let ends = [usize::from(user_at), usize::from(owner_at)];
        let cut = ends.iter().all(|end| text.is_char_boundary(*end)) && user_at <= owner_at;
        if !cut {
            return Err(DecodeError::Malformed("label"));
        }
        Ok(Self {
            text: text.into(),
            user_at,
            owner_at,
        })
    }
}

/// How one call to a provider ended, as far as its bill is concerned. Nano-dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not ended.
    InFlight,
    /// It cost this much.
    Billed(i64),
    /// It provably cost nothing.
    NotBilled,
    /// It may have cost up to this much.
    Unknown(i64),
}

impl Wire for Outcome {
    fn put(&self, out: &mut Vec<u8>) {
        let (code, amount) = match *self {
            Self::InFlight => (0_u8, 0),
            Self::Billed(amount) => (1, amount),
            Self::NotBilled => (2, 0),
            Self::Unknown(amount) => (3, amount),
        };
        code.put(out);
        amount.put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match (u8::get(from)?, i64::get(from)?) {
            (0, 0) => Ok(Self::InFlight),
            (1, amount) if amount >= 0 => Ok(Self::Billed(amount)),
            (2, 0) => Ok(Self::NotBilled),
            (3, amount) if amount >= 0 => Ok(Self::Unknown(amount)),
            _ => Err(DecodeError::Malformed("outcome")),
        }
    }
}

/// One call to a provider under a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which rung of the ladder.
    pub rung: u8,
    /// The most it can cost.
    pub amount: i64,
    /// How it ended.
    pub outcome: Outcome,
}

wire_struct!(Attempt {
    rung,
    amount,
    outcome
});

impl Attempt {
    /// The most that it may have cost, as far as is known.
    pub(crate) fn worst(&self) -> i64 {
        match self.outcome {
            Outcome::InFlight => self.amount,
            Outcome::Billed(amount) | Outcome::Unknown(amount) => amount,
            Outcome::NotBilled => 0,
        }
    }
}

/// Where a hold is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HoldState {
    /// Reserved; nothing was sent.
    Open = 0,
    /// At least one call was sent.
    Dispatched = 1,
    /// Charged in full until there is evidence of what it cost.
    Unknown = 2,
    /// Posted; over.
    Settled = 3,
    /// Given back; over.
    Released = 4,
    /// Was unknown, and posted by evidence; over.
    Adjusted = 5,
}

impl HoldState {
    /// The state with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        let all = [
            Self::Open,
            Self::Dispatched,
            Self::Unknown,
            Self::Settled,
            Self::Released,
            Self::Adjusted,
        ];
        all.get(usize::from(code)).copied()
    }
}

wire_code!(HoldState, "state");

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub state: HoldState,
    /// What is held on each of its counters.
    pub amount: i64,
    /// What is charged as unknown on each of its counters.
    pub unknown: i64,
    /// When it was reserved.
    pub at: Stamp,
    pub price_hash: u64,
    pub ladder: u16,
    pub charges: Vec<Charge>,
    pub rates: Vec<RateCharge>,
    /// The most that each rung of the ladder can cost.
    pub rungs: Vec<i64>,
    pub attempts: Vec<Attempt>,
    pub key: Option<[u8; 16]>,
    pub label: Since<2, Option<Label>>,
}

wire_struct!(Hold {
    state,
    amount,
    unknown,
    at,
    price_hash,
    ladder,
    charges,
    rates,
    rungs,
    attempts,
    key,
    label
});

/// What a crash may have lost: one unknown, with an amount of its own on each counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostCalls {
    /// When it was found out.
    pub at: Stamp,
    pub charges: Vec<(Charge, i64)>,
}

wire_struct!(LostCalls { at, charges });

impl LostCalls {
    /// The most that all lost calls together can have cost: every call is on the counter that
    /// lost most, if there is one that all calls are charged to.
    pub(crate) fn unknown(&self) -> i64 {
        let amounts = self.charges.iter().map(|(_, amount)| *amount);
        amounts.max().unwrap_or(0)
    }
}

impl Hold {
    /// The most that its attempts may have cost.
    pub(crate) fn worst(&self) -> Option<i64> {
        self.attempts
            .iter()
            .try_fold(0_i64, |sum, attempt| sum.checked_add(attempt.worst()))
    }
}

/// What an idempotency key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyEntry {
    pub body: [u8; 16],
    pub hold: u64,
    pub amount: i64,
    pub choice: u16,
    pub ladder: u16,
    pub state: HoldState,
    pub expires_ns: i64,
}

wire_struct!(KeyEntry {
    body,
    hold,
    amount,
    choice,
    ladder,
    state,
    expires_ns
});

/// All holds that are not resolved, and the idempotency keys of the last day.
#[derive(Debug)]
pub(crate) struct Holds {
    pub open: HashMap<u64, Hold>,
    pub lost: BTreeMap<u64, LostCalls>,
    pub keys: HashMap<[u8; 16], KeyEntry>,
    /// Keys by when they expire, the earliest first.
    pub expiries: VecDeque<(i64, [u8; 16])>,
    pub next: u64,
    pub dirty: HashSet<u64>,
    pub dirty_lost: HashSet<u64>,
    pub dirty_keys: HashSet<[u8; 16]>,
}

impl Default for Holds {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            lost: BTreeMap::new(),
            keys: HashMap::new(),
            expiries: VecDeque::new(),
            next: 1,
            dirty: HashSet::new(),
            dirty_lost: HashSet::new(),
            dirty_keys: HashSet::new(),
        }
    }
}

impl Holds {
    /// A hold that is not resolved.
    pub(crate) fn unresolved(&self, id: u64) -> Result<&Hold, LedgerError> {
        match self.open.get(&id) {
            Some(hold) => Ok(hold),
            None if self.lost.contains_key(&id) => Err(LedgerError::ChargedAsUnknown(id)),
            None if id > 0 && id < self.next => Err(LedgerError::AlreadyResolved(id)),
            None => Err(LedgerError::NoSuchHold(id)),
        }
    }

    /// A hold whose money is still held.
    pub(crate) fn held(&self, id: u64) -> Result<&Hold, LedgerError> {
        let hold = self.unresolved(id)?;
        if hold.state == HoldState::Unknown {
            return Err(LedgerError::ChargedAsUnknown(id));
        }
        Ok(hold)
    }

    /// What a key stands for, if it has not expired.
    pub(crate) fn key(&self, key: &[u8; 16], at_ns: i64) -> Option<&KeyEntry> {
        self.keys.get(key).filter(|entry| entry.expires_ns > at_ns)
    }

    pub(crate) fn forget_expired_keys(&mut self, at_ns: i64) {
        while let Some((expires_ns, key)) = self.expiries.front().copied() {
            if expires_ns > at_ns {
                return;
            }
            self.expiries.pop_front();
            self.keys.remove(&key);
            self.dirty_keys.insert(key);
        }
    }

    pub(crate) fn remember_key(&mut self, key: [u8; 16], entry: KeyEntry) {
        self.expiries.push_back((entry.expires_ns, key));
        self.keys.insert(key, entry);
        self.dirty_keys.insert(key);
    }

    /// Notes the state of a hold beside the key it was asked for by.
    pub(crate) fn note_state(&mut self, key: Option<[u8; 16]>, hold: u64, state: HoldState) {
        let Some(key) = key else { return };
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        if entry.hold == hold {
            entry.state = state;
            self.dirty_keys.insert(key);
        }
    }

    pub(crate) fn touch(&mut self, id: u64) -> Option<&mut Hold> {
        self.dirty.insert(id);
        self.open.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: u64) {
        self.dirty.insert(id);
        self.open.remove(&id);
    }
}
