//! Cuts a text into the pieces that byte-pair encoding works on, as the public vocabularies'
//! regular expressions do, but without a regular expression: one pass, no backtracking, so that
//! hostile text costs no more than prose. Each step names the alternative it stands for.

use super::public::Encoding;

static BLOCK_OF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/unicode.index"));
static CLASS_IN_BLOCK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/unicode.blocks"));

/// What the expressions tell characters apart by. The numbers are those of `build.rs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    /// Neither of the others: punctuation, symbols, controls.
    Other,
    /// `\p{Lu}` and `\p{Lt}`.
    Upper,
    /// `\p{Ll}`.
    Lower,
    /// `\p{Lm}` and `\p{Lo}`: letters without case.
    Caseless,
    /// `\p{M}`.
    Mark,
    /// `\p{N}`.
    Number,
    /// `\s` without line ends.
    Space,
    /// `\r` and `\n`.
    Newline,
}

impl Class {
    fn of(character: char) -> Self {
        let code = character as usize;
        let block = usize::from(BLOCK_OF[code >> 8]);
        match CLASS_IN_BLOCK[block << 8 | code & 0xFF] {
            1 => Self::Upper,
            2 => Self::Lower,
            3 => Self::Caseless,
            4 => Self::Mark,
            5 => Self::Number,
            6 => Self::Space,
            7 => Self::Newline,
            _ => Self::Other,
        }
    }

    /// `\p{L}`
    fn is_letter(self) -> bool {
        matches!(self, Self::Upper | Self::Lower | Self::Caseless)
    }

    /// `\s`
    fn is_space(self) -> bool {
        matches!(self, Self::Space | Self::Newline)
    }

    /// `[^\s\p{L}\p{N}]`
    fn is_symbol(self) -> bool {
        matches!(self, Self::Other | Self::Mark)
    }

    /// `[^\r\n\p{L}\p{N}]`: what a word may carry in front.
    fn may_lead_word(self) -> bool {
        matches!(self, Self::Other | Self::Mark | Self::Space)
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
    fn is_head(self) -> bool {
        matches!(self, Self::Upper | Self::Caseless | Self::Mark)
    }

    /// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
    fn is_tail(self) -> bool {
        matches!(self, Self::Lower | Self::Caseless | Self::Mark)
    }
}

/// The pieces of a text, in order; together they are the text.
pub(super) struct Pieces<'t> {
    text: &'t str,
    encoding: Encoding,
    at: usize,
}

impl<'t> Pieces<'t> {
    pub(super) fn of(text: &'t str, encoding: Encoding) -> Self {
        Self {
            text,
            encoding,
            at: 0,
        }
    }

    /// The class of the character at a byte offset, and where the next one begins.
    fn class_at(&self, at: usize) -> Option<(Class, usize)> {
        let byte = *self.text.as_bytes().get(at)?;
        if byte.is_ascii() {
            return Some((Class::of(char::from(byte)), at + 1));
        }
        let character = self.text[at..].chars().next()?;
        Some((Class::of(character), at + character.len_utf8()))
    }

    /// Where the run of characters that `keep` wants ends.
    fn run(&self, mut at: usize, keep: impl Fn(Class) -> bool) -> usize {
        while let Some((_, next)) = self.class_at(at).filter(|(class, _)| keep(*class)) {
            at = next;
        }
        at
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// `'(?i:[sdmt]|ll|ve|re)`, where case folding lets `ſ` pass for an s.
    fn contraction(&self, at: usize) -> Option<usize> {
        if self.byte(at)? != b'\'' {
            return None;
        }
        let rest = &self.text.as_bytes()[at + 1..];
        let folded = |index: usize| rest.get(index).map(u8::to_ascii_lowercase);
        match (folded(0)?, folded(1)) {
            (b's' | b'd' | b'm' | b't', _) => Some(at + 2),
            (b'l', Some(b'l')) | (b'v' | b'r', Some(b'e')) => Some(at + 3),
            _ if rest.starts_with("ſ".as_bytes()) => Some(at + 1 + "ſ".len()),
            _ => None,
        }
    }

    /// `\p{N}{1,3}`
    fn number(&self, at: usize) -> usize {
        let mut end = at;
        for _ in 0..3 {
            match self.class_at(end) {
                Some((Class::Number, next)) => end = next,
                _ => break,
            }
        }
        end
    }

    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`; the o200k expression also takes `/` after line ends.
    fn symbols(&self, at: usize) -> Option<usize> {
        let start = if self.byte(at) == Some(b' ') {
            at + 1
        } else {
            at
        };
        let mut end = self.run(start, Class::is_symbol);
        if end == start {
            return None;
        }
        let slash_too = self.encoding == Encoding::O200k;
        while matches!(self.byte(end), Some(b'\r' | b'\n'))
            || slash_too && self.byte(end) == Some(b'/')
        {
            end += 1;
        }
        Some(end)
    }

    /// `\s++$|\s*[\r\n]|\s+(?!\S)|\s` of cl100k and `\s*[\r\n]+|\s+(?!\S)|\s+` of o200k.
    fn spaces(&self, at: usize) -> usize {
        let (mut end, mut last, mut after_newline) = (at, at, None);
        while let Some((class, next)) = self.class_at(end).filter(|(class, _)| class.is_space()) {
            (last, end) = (end, next);
            if class == Class::Newline {
                after_newline = Some(end);
            }
        }
        let at_the_end = end == self.text.len();
        if at_the_end && self.encoding == Encoding::Cl100k {
            return end;
        }
        if let Some(after_newline) = after_newline {
            return after_newline;
        }
        // The last space belongs to the word behind it, unless it is the only one.
        if at_the_end || last == at {
            end
        } else {
            last
        }
    }

    /// `[^\r\n\p{L}\p{N}]?+\p{L}++`
    fn word_cl100k(&self, class: Class, next: usize) -> Option<usize> {
        if class.is_letter() {
            return Some(self.run(next, Class::is_letter));
        }
        let end = self.run(next, Class::is_letter);
        (class.may_lead_word() && end > next).then_some(end)
    }

    /// The two alternatives for words, `…[head]*[tail]+…` and `…[head]+[tail]*…`, each with an
    /// optional character in front and a contraction behind. Each is tried with the character in
    /// front first.
    fn word_o200k(&self, at: usize, class: Class, next: usize) -> Option<usize> {
        let leading = class.may_lead_word().then_some(next);
        let end = leading
            .and_then(|start| self.capitalised(start))
            .or_else(|| self.capitalised(at))
            .or_else(|| leading.and_then(|start| self.capitals(start)))
            .or_else(|| self.capitals(at))?;
        Some(self.contraction(end).unwrap_or(end))
    }

    /// `[head]*[tail]+`. Where no lower-case letter follows the run of heads, the expression steps
    /// back to the last head that is a tail as well.
    fn capitalised(&self, start: usize) -> Option<usize> {
        let (mut end, mut after_shared) = (start, None);
        while let Some((class, next)) = self.class_at(end).filter(|(class, _)| class.is_head()) {
            end = next;
            if class.is_tail() {
                after_shared = Some(end);
            }
        }
        let tail = self.run(end, Class::is_tail);
        if tail > end {
            Some(tail)
        } else {
            after_shared
        }
    }

    /// `[head]+[tail]*` where [`Self::capitalised`] found nothing: no tail can follow.
    fn capitals(&self, start: usize) -> Option<usize> {
        let end = self.run(start, Class::is_head);
        (end > start).then_some(end)
    }

    fn piece_end(&self, at: usize, class: Class, next: usize) -> usize {
        let word = match self.encoding {
            Encoding::Cl100k => self
                .contraction(at)
                .or_else(|| self.word_cl100k(class, next)),
            Encoding::O200k => self.word_o200k(at, class, next),
        };
        if let Some(end) = word {
            return end;
        }
        if class == Class::Number {
            return self.number(at);
        }
        self.symbols(at).unwrap_or_else(|| self.spaces(at))
    }
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let start = self.at;
        let (class, next) = self.class_at(start)?;
        self.at = self.piece_end(start, class, next);
        Some(&self.text[start..self.at])
    }
}
