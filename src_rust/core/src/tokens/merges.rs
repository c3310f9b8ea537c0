//! Byte-pair encoding that counts exactly, in linear time, in a fraction of the usual memory.
//!
//! The textbook algorithm merges the pair of lowest rank until none is left; its answer is the
//! only sequence of tokens in which every two neighbours are *compatible*: encoding their joined
//! bytes would give the same two tokens again. So we walk left to right over the longest tokens,
//! step to a shorter one where neighbours disagree, and back where none is left, marking the place
//! as a dead end. Each byte is marked once at most, hence the linear time. (The idea is that of the
//! `bpe` crate by GitHub, which spends 98 MB on cl100k and o200k.)

/// What comes first in the data: the number of edges in the trie.
const HEADER_BYTES: usize = 4;
/// Every byte is a token of its own; these are the first.
const BYTE_TOKENS: u32 = 256;
/// Bytes that describe one merged token: two tokens of three bytes.
const MERGE_BYTES: usize = 6;
/// No token, no node.
const NONE: u32 = u32::MAX;
/// A free place in the table of pairs.
const FREE: u32 = u32::MAX;

/// One vocabulary's tables.
pub(super) struct Merges {
    /// As `build.rs` wrote it; read in place.
    data: &'static [u8],
    trie: Trie,
    /// Bytes in each token.
    lengths: Vec<u8>,
    /// The longest token that each token begins with, other than itself.
    shorter: Vec<u32>,
    /// Open addressing from a pair of tokens to the token they merge to; the pair is in `data`.
    pairs: Vec<u32>,
    pair_shift: u32,
}

/// What one count needs, kept from piece to piece.
#[derive(Default)]
pub(super) struct Scratch {
    tokens: Vec<u32>,
    dead_ends: Vec<u64>,
}

impl Scratch {
    fn start(&mut self, bytes: usize) {
        self.tokens.clear();
        self.dead_ends.clear();
        self.dead_ends.resize(bytes / 64 + 1, 0);
    }

    fn is_dead_end(&self, at: usize) -> bool {
        self.dead_ends[at / 64] >> (at % 64) & 1 == 1
    }

    fn mark_dead_end(&mut self, at: usize) {
        self.dead_ends[at / 64] |= 1 << (at % 64);
    }
}

impl Merges {
    /// Unpacks what `build.rs` wrote.
    pub(super) fn load(data: &'static [u8]) -> Self {
        let (header, data) = data.split_at(HEADER_BYTES);
        let edges = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let merged = (data.len() - BYTE_TOKENS as usize) / MERGE_BYTES;
        let slots = (merged * 2).next_power_of_two();
        let mut merges = Self {
            data,
            trie: Trie::default(),
            lengths: Vec::new(),
            shorter: Vec::new(),
            pairs: vec![FREE; slots],
            pair_shift: 64 - slots.trailing_zeros(),
        };
        merges.fill_pairs();
        merges.fill_trie(edges as usize);
        merges
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> u32 {
        let merged = (self.data.len() - BYTE_TOKENS as usize) / MERGE_BYTES;
        BYTE_TOKENS + u32::try_from(merged).expect("ids fit three bytes")
    }

    /// The two tokens that a merged token is made of.
    fn halves(&self, token: u32) -> (u32, u32) {
        let at = BYTE_TOKENS as usize + (token - BYTE_TOKENS) as usize * MERGE_BYTES;
        let half = &self.data[at..at + MERGE_BYTES];
        (
            u32::from_le_bytes([half[0], half[1], half[2], 0]),
            u32::from_le_bytes([half[3], half[4], half[5], 0]),
        )
    }

    fn fill_pairs(&mut self) {
        for token in BYTE_TOKENS..self.len() {
            let (left, right) = self.halves(token);
            let mut slot = self.pair_slot(left, right);
            while self.pairs[slot] != FREE {
                slot = (slot + 1) & (self.pairs.len() - 1);
            }
            self.pairs[slot] = token;
        }
    }

    /// Short tokens first, so that every token a longer one begins with is already in the trie.
    fn fill_trie(&mut self, edges: usize) {
        let spelling = Spelling::of(self);
        let count = self.len();
        self.lengths = (0..count).map(|token| spelling.length(token)).collect();
        let mut by_length: Vec<u32> = (0..count).collect();
        by_length.sort_by_key(|&token| self.lengths[token as usize]);
        self.shorter = vec![NONE; count as usize];
        self.trie = Trie::new(count, edges);
        for token in by_length {
            self.shorter[token as usize] = self.trie.insert(spelling.bytes(token), token);
        }
    }

    fn pair_slot(&self, left: u32, right: u32) -> usize {
        let key = u64::from(left) << 32 | u64::from(right);
        (spread(key) >> self.pair_shift) as usize
    }

    /// The token that two neighbours merge to.
    fn merged(&self, left: u32, right: u32) -> Option<u32> {
        let mut slot = self.pair_slot(left, right);
        loop {
            let token = self.pairs[slot];
            if token == FREE {
                return None;
            }
            if self.halves(token) == (left, right) {
                return Some(token);
            }
            slot = (slot + 1) & (self.pairs.len() - 1);
        }
    }

    /// Whether encoding the bytes of both gives just these two tokens: undo their merges, latest
    /// first, and see whether a merge across the border would have come earlier.
    fn compatible(&self, mut left: u32, mut right: u32) -> bool {
        let mut undone = u32::MAX;
        loop {
            if self.merged(left, right).is_some_and(|token| token < undone) {
                return false;
            }
            if left.max(right) < BYTE_TOKENS {
                return true;
            }
            if left > right {
                undone = left;
                left = self.halves(left).1;
            } else {
                // Of two equal merges the left one comes first, so it may still win.
                undone = right + 1;
                right = self.halves(right).0;
            }
        }
    }

    /// How many tokens a piece has.
    pub(super) fn count(&self, piece: &[u8], scratch: &mut Scratch) -> usize {
        let (first, length) = self.trie.longest(piece);
        if length == piece.len() {
            return usize::from(length > 0);
        }
        self.walk(piece, first, scratch);
        scratch.tokens.len()
    }

    fn walk(&self, piece: &[u8], first: u32, scratch: &mut Scratch) {
        scratch.start(piece.len());
        let (mut at, mut longest) = (0, first);
        while at < piece.len() {
            if let Some(token) = self.fitting(longest, at, scratch) {
                scratch.tokens.push(token);
                at += usize::from(self.lengths[token as usize]);
                longest = self.trie.longest(&piece[at..]).0;
            } else {
                scratch.mark_dead_end(at);
                longest = scratch.tokens.pop().expect("every text has an encoding");
                at -= usize::from(self.lengths[longest as usize]);
            }
        }
    }

    /// The longest token from `longest` downwards that goes with the one before it.
    fn fitting(&self, longest: u32, at: usize, scratch: &Scratch) -> Option<u32> {
        let before = scratch.tokens.last().copied();
        let mut token = longest;
        while token != NONE {
            let end = at + usize::from(self.lengths[token as usize]);
            if !scratch.is_dead_end(end) && before.is_none_or(|left| self.compatible(left, token)) {
                return Some(token);
            }
            token = self.shorter[token as usize];
        }
        None
    }
}

/// The bytes of all tokens, while the tables are built.
struct Spelling {
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl Spelling {
    fn of(merges: &Merges) -> Self {
        let mut spelling = Self {
            bytes: merges.data[..BYTE_TOKENS as usize].to_vec(),
            starts: (0..=BYTE_TOKENS).collect(),
        };
        for token in BYTE_TOKENS..merges.len() {
            let (left, right) = merges.halves(token);
            spelling.append(left);
            spelling.append(right);
            let end = u32::try_from(spelling.bytes.len()).expect("a few megabytes");
            spelling.starts.push(end);
        }
        spelling
    }

    fn range(&self, token: u32) -> std::ops::Range<usize> {
        self.starts[token as usize] as usize..self.starts[token as usize + 1] as usize
    }

    fn append(&mut self, token: u32) {
        self.bytes.extend_from_within(self.range(token));
    }

    fn bytes(&self, token: u32) -> &[u8] {
        &self.bytes[self.range(token)]
    }

    fn length(&self, token: u32) -> u8 {
        u8::try_from(self.range(token).len()).expect("no token is longer than 255 bytes")
    }
}

/// All tokens by their bytes. A node that is a token has its id; the others have ids above.
#[derive(Default)]
struct Trie {
    /// Nodes of one byte.
    roots: Vec<u32>,
    /// Open addressing from (node, byte) to the next node: `(key + 1) << 32 | node`, 0 if free.
    slots: Vec<u64>,
    shift: u32,
    tokens: u32,
    nodes: u32,
}

impl Trie {
    /// For so many tokens, and so many beginnings of two bytes and more.
    fn new(tokens: u32, edges: usize) -> Self {
        let slots = (edges * 3 / 2).next_power_of_two();
        Self {
            roots: vec![NONE; BYTE_TOKENS as usize],
            slots: vec![0; slots],
            shift: 64 - slots.trailing_zeros(),
            tokens,
            nodes: tokens,
        }
    }

    fn key(node: u32, byte: u8) -> u64 {
        u64::from(node) << 8 | u64::from(byte)
    }

    /// The slot of an edge, or the free one where it would go.
    fn find(&self, key: u64) -> Result<usize, usize> {
        let mut slot = (spread(key) >> self.shift) as usize;
        loop {
            match self.slots[slot] >> 32 {
                0 => return Err(slot),
                found if found == key + 1 => return Ok(slot),
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }

    /// The node that `byte` leads to.
    fn next(&self, node: u32, byte: u8) -> Option<u32> {
        let slot = self.find(Self::key(node, byte)).ok()?;
        Some((self.slots[slot] & u64::from(u32::MAX)) as u32)
    }

    /// Adds a token all of whose beginnings that are tokens are here, and returns the longest.
    fn insert(&mut self, bytes: &[u8], token: u32) -> u32 {
        let (&first, rest) = bytes.split_first().expect("no token is empty");
        let Some((&last, middle)) = rest.split_last() else {
            self.roots[usize::from(first)] = token;
            return NONE;
        };
        let mut node = self.roots[usize::from(first)];
        let mut longest = node;
        for &byte in middle {
            node = self.next(node, byte).unwrap_or_else(|| {
                let new = self.nodes;
                self.nodes += 1;
                self.link(node, byte, new);
                new
            });
            if node < self.tokens {
                longest = node;
            }
        }
        self.link(node, last, token);
        longest
    }

    fn link(&mut self, node: u32, byte: u8, next: u32) {
        let key = Self::key(node, byte);
        let slot = self.find(key).unwrap_or_else(|free| free);
        self.slots[slot] = (key + 1) << 32 | u64::from(next);
    }

    /// The longest token that a text begins with, and its length; `(NONE, 0)` for no text.
    fn longest(&self, text: &[u8]) -> (u32, usize) {
        let Some((&first, rest)) = text.split_first() else {
            return (NONE, 0);
        };
        let mut node = self.roots[usize::from(first)];
        let mut longest = (node, 1);
        for (&byte, length) in rest.iter().zip(2..) {
            match self.next(node, byte) {
                Some(next) => node = next,
                None => break,
            }
            if node < self.tokens {
                longest = (node, length);
            }
        }
        longest
    }
}

/// Fibonacci hashing: the top bits of the product are well mixed.
fn spread(key: u64) -> u64 {
    key.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
