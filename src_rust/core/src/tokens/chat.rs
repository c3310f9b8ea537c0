//! Tokens of a chat prompt, straight from its JSON.
//!
//! Where a format is documented the count is exact; everything else is bounded from above and
//! says so. Images, audio and files are only reported: what they cost is the model's affair.

use super::json::{self, Value};
use super::{TokenError, Vocabulary};

/// What a chat format adds to the texts.
struct Format {
    /// Around each message.
    message: usize,
    /// For a `name`.
    name: usize,
    /// Once: what opens the answer, and any system text of the format's own.
    prompt: usize,
    /// Whether these are the documented figures rather than a bound.
    exact: bool,
}

/// GPT-3.5 of June 2023 and everything since, as OpenAI documents it.
const OPENAI: Format = Format {
    message: 3,
    name: 1,
    prompt: 3,
    exact: true,
};
/// A bound on the chat templates of open models: 4 to 8 tokens frame a message, and a template's
/// own system text has up to 70 (gpt-oss: who it is, dates, channels).
const TEMPLATE: Format = Format {
    message: 16,
    name: 8,
    prompt: 192,
    exact: false,
};

/// How tools are shown to a model is not public. Reported counts follow their names, types and
/// descriptions, about 12 + 7 tokens for each function, 3 for each property or choice. Their JSON
/// has all of these texts and more, each in one string or two.
const TOKENS_PER_TOOL: usize = 24;
const TOKENS_PER_STRING: usize = 3;
/// Templates put instructions before the tools; the longest known has about 300 tokens.
const TOKENS_FOR_TOOLS: usize = 384;
/// Between two text parts of one message, where some formats put a line end.
const TOKENS_BETWEEN_PARTS: usize = 2;

/// What a chat prompt is made of.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct PromptCount {
    /// Tokens of all text, with the format's overhead.
    pub tokens: usize,
    /// Whether `tokens` is the count; else it is a bound. Images and the like do not touch it.
    pub exact: bool,
    /// Images that are asked for in low detail.
    pub images_low: usize,
    /// All other images.
    pub images_other: usize,
    /// Clips of inline audio.
    pub audio_clips: usize,
    /// Bytes in them, decoded; rounded up.
    pub audio_bytes: usize,
    /// Files, references and parts of unknown kind: nothing here bounds their tokens.
    pub files: usize,
    /// Bytes in those that are inline, as sent.
    pub file_bytes: usize,
}

pub(super) fn count(
    vocabulary: &Vocabulary,
    messages: &[u8],
    tools: Option<&[u8]>,
) -> Result<PromptCount, TokenError> {
    let mut counter = Counter::of(vocabulary);
    counter.messages(messages)?;
    if let Some(tools) = tools {
        counter.tools(tools)?;
    }
    Ok(counter.count)
}

struct Counter<'v> {
    vocabulary: &'v Vocabulary,
    format: &'static Format,
    count: PromptCount,
}

impl<'v> Counter<'v> {
    fn of(vocabulary: &'v Vocabulary) -> Self {
        let format = match vocabulary {
            Vocabulary::OpenAi(_) => &OPENAI,
            Vocabulary::Harmony | Vocabulary::HuggingFace(_) | Vocabulary::Unknown => &TEMPLATE,
        };
        let count = PromptCount {
            tokens: format.prompt,
            exact: format.exact,
            ..PromptCount::default()
        };
        Self {
            vocabulary,
            format,
            count,
        }
    }

    fn messages(&mut self, bytes: &[u8]) -> Result<(), TokenError> {
        let (messages, _) = json::checked(bytes)?;
        if !json::is_array(messages) {
            return Err(TokenError::Shape("messages must be an array"));
        }
        json::for_each(messages, |message| self.message(message))
    }

    fn message(&mut self, message: Value<'_>) -> Result<(), TokenError> {
        if !json::is_object(message) {
            return Err(TokenError::Shape("each message must be an object"));
        }
        self.count.tokens += self.format.message;
        let mut seen = Seen::default();
        json::for_each_member(message, |key, value| {
            if !seen.first(key) {
                self.count.exact = false; // which of the two the provider takes is its affair
            }
            self.member(key, value)
        })
    }

    fn member(&mut self, key: &str, value: Value<'_>) -> Result<(), TokenError> {
        match key {
            _ if json::is_null(value) => Ok(()),
            "role" if json::is_string(value) => self.string(value),
            "name" if json::is_string(value) => {
                self.count.tokens += self.format.name;
                self.string(value)
            }
            "content" if json::is_string(value) => self.string(value),
            "content" if json::is_array(value) => self.parts(value),
            "content" => Err(TokenError::Shape(
                "content must be a string, an array of parts or null",
            )),
            // An earlier spoken answer, by reference.
            "audio" => {
                self.file(0);
                Ok(())
            }
            _ => {
                self.undocumented(value);
                Ok(())
            }
        }
    }

    fn string(&mut self, value: Value<'_>) -> Result<(), TokenError> {
        let counted = json::with_string(value, |text| self.vocabulary.count_text(text))?;
        self.count.tokens += counted.tokens;
        self.count.exact &= counted.exact;
        Ok(())
    }

    /// Tool calls, call ids, extensions: no more than their JSON as text and some frame.
    fn undocumented(&mut self, value: Value<'_>) {
        self.count.tokens += self.bounded_text(value.get()) + TOKENS_PER_TOOL;
        self.count.exact = false;
    }

    /// Tokens of JSON that is shown to the model in a form we do not know: with its escapes as
    /// they are, or read.
    fn bounded_text(&self, text: &str) -> usize {
        let written = self.vocabulary.count_text(text).tokens;
        match json::characters_read(text) {
            Some(read) => written.max(self.vocabulary.count_text(&read).tokens),
            None => written,
        }
    }

    fn parts(&mut self, parts: Value<'_>) -> Result<(), TokenError> {
        let mut texts = 0;
        json::for_each(parts, |part| {
            texts += usize::from(self.part(part)?);
            Ok(())
        })?;
        if texts > 1 {
            // How parts are joined is not documented.
            self.count.tokens += (texts - 1) * TOKENS_BETWEEN_PARTS;
            self.count.exact = false;
        }
        Ok(())
    }

    /// Counts one part; whether it is text.
    fn part(&mut self, part: Value<'_>) -> Result<bool, TokenError> {
        if json::is_string(part) {
            self.string(part)?;
            return Ok(true);
        }
        if !json::is_object(part) {
            return Err(TokenError::Shape("each content part must be an object"));
        }
        let Some(kind) = part_kind(part)? else {
            self.file(part.get().len());
            return Ok(false);
        };
        let mut understood = false;
        json::for_each_member(part, |key, value| {
            if key == kind {
                understood |= self.part_body(key, value)?;
            }
            Ok(())
        })?;
        if !understood {
            self.file(part.get().len());
        }
        Ok(understood && matches!(kind.as_str(), "text" | "refusal"))
    }

    /// Counts what the part's `type` names; whether it has a form that we know.
    fn part_body(&mut self, kind: &str, body: Value<'_>) -> Result<bool, TokenError> {
        match kind {
            "text" | "refusal" if json::is_string(body) => self.string(body)?,
            "image_url" if is_low_detail(body)? => self.count.images_low += 1,
            "image_url" => self.count.images_other += 1,
            "input_audio" => match audio_base64_bytes(body)? {
                Some(base64_bytes) => {
                    self.count.audio_clips += 1;
                    self.count.audio_bytes += base64_bytes.div_ceil(4) * 3;
                }
                None => return Ok(false),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn file(&mut self, bytes: usize) {
        self.count.files += 1;
        self.count.file_bytes += bytes;
    }

    fn tools(&mut self, bytes: &[u8]) -> Result<(), TokenError> {
        let (tools, strings) = json::checked(bytes)?;
        if json::is_null(tools) {
            return Ok(());
        }
        if !json::is_array(tools) {
            return Err(TokenError::Shape("tools must be an array"));
        }
        let mut number = 0;
        json::for_each(tools, |_| {
            number += 1;
            Ok(())
        })?;
        if number > 0 {
            self.count.exact = false;
            self.count.tokens += self.bounded_text(tools.get())
                + number * TOKENS_PER_TOOL
                + strings * TOKENS_PER_STRING
                + TOKENS_FOR_TOOLS;
        }
        Ok(())
    }
}

/// Which documented members of a message were there already.
#[derive(Default)]
struct Seen([bool; 3]);

impl Seen {
    fn first(&mut self, key: &str) -> bool {
        let known = ["role", "content", "name"]
            .iter()
            .position(|name| *name == key);
        known.is_none_or(|index| !std::mem::replace(&mut self.0[index], true))
    }
}

/// A part's `type`; `None` where there is not one, or more than one.
fn part_kind(part: Value<'_>) -> Result<Option<String>, TokenError> {
    let (mut kind, mut types) = (None, 0);
    json::for_each_member(part, |key, value| {
        if key == "type" {
            types += 1;
            if json::is_string(value) {
                kind = Some(json::with_string(value, str::to_owned)?);
            }
        }
        Ok(())
    })?;
    Ok(kind.filter(|_| types == 1))
}

/// Whether an `image_url` asks for low detail, and for nothing else.
fn is_low_detail(image: Value<'_>) -> Result<bool, TokenError> {
    let (mut low, mut other) = (false, false);
    if json::is_object(image) {
        json::for_each_member(image, |key, value| {
            if key == "detail" {
                let is_low =
                    json::is_string(value) && json::with_string(value, |detail| detail == "low")?;
                low |= is_low;
                other |= !is_low;
            }
            Ok(())
        })?;
    }
    Ok(low && !other)
}

/// Length of an `input_audio`'s inline data, with its quotes.
fn audio_base64_bytes(audio: Value<'_>) -> Result<Option<usize>, TokenError> {
    let mut bytes = None;
    if json::is_object(audio) {
        json::for_each_member(audio, |key, value| {
            if key == "data" && json::is_string(value) {
                bytes = Some(bytes.unwrap_or(0) + value.get().len());
            }
            Ok(())
        })?;
    }
    Ok(bytes)
}
