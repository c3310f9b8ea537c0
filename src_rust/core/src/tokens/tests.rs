//! Counts against `tiktoken`, the code that defines them; bounds; and input made to hurt.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tiktoken_rs::{cl100k_base_singleton, o200k_base_singleton, CoreBPE};
use unicode_normalization::UnicodeNormalization;

use super::*;

const PUBLIC: [Encoding; 2] = [Encoding::Cl100k, Encoding::O200k];
/// Far above what any of these takes, far below what quadratic time would.
const HOSTILE_TIME_MAX: Duration = Duration::from_secs(20);

fn reference(encoding: Encoding) -> &'static CoreBPE {
    match encoding {
        Encoding::Cl100k => cl100k_base_singleton(),
        Encoding::O200k => o200k_base_singleton(),
    }
}

fn assert_equal(text: &str) {
    for encoding in PUBLIC {
        let expected = reference(encoding).encode_ordinary(text).len();
        assert_eq!(encoding.count(text), expected, "{encoding:?} of {text:?}");
    }
}

#[test]
fn vocabularies_are_whole() {
    assert_eq!(Encoding::Cl100k.tokens(), 100_256);
    assert_eq!(Encoding::O200k.tokens(), 199_998);
}

#[test]
fn every_token_of_text_counts_as_tiktoken_says() {
    for encoding in PUBLIC {
        for rank in 0..encoding.tokens() {
            let bytes = reference(encoding).decode_bytes(&[rank]).expect("a token");
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let expected = reference(encoding).encode_ordinary(text).len();
                assert_eq!(encoding.count(text), expected, "{encoding:?} of {text:?}");
            }
        }
    }
}

/// All characters; of the blocks that are all of one kind, only some.
fn characters() -> Vec<char> {
    let uniform = |code: u32| matches!(code, 0x3400..0xA000 | 0xAC00..0xF900 | 0x2_0000..);
    ('\0'..=char::MAX)
        .filter(|&c| !uniform(u32::from(c)) || u32::from(c) % 127 == 0)
        .collect()
}

#[test]
fn every_character_is_classed_as_tiktoken_does() {
    // Around each character stand a letter, a space and a digit: its class shows in the cuts.
    for chunk in characters().chunks(4096) {
        let text: String = chunk
            .iter()
            .flat_map(|&c| ['A', c, 'b', ' ', c, c, '7', c, '\n'])
            .collect();
        for encoding in PUBLIC {
            let expected = reference(encoding).encode_ordinary(&text).len();
            assert_eq!(encoding.count(&text), expected, "from {:?}", chunk[0]);
        }
    }
}

#[test]
fn edges_of_the_expressions() {
    for text in [
        "",
        " ",
        "  ",
        "\n",
        " \n",
        "\n ",
        "\n  ",
        "\n  x",
        "  \n  \n  x",
        "a \n",
        "a  b",
        "\r\n\r\n",
        "it's",
        "IT'S",
        "'sat",
        "x'ſ y",
        "'ſ",
        "'ll'LL'lL",
        "'l",
        "'v",
        "'re'RE",
        "don't''t",
        "'",
        "HTTPServer",
        "ABC",
        "ABc",
        "aBC",
        "éÉé",
        "中文AB中CD ef",
        "ǅ ǅa aǅ",
        "ʰA Aʰ Aʰb",
        "\u{301}",
        "\u{301}A",
        " \u{301}a",
        "\u{301}\u{301}Ab's",
        "e\u{301}'s",
        "½²3",
        "123456789",
        "١٢٣٤",
        "!!\n/\n//x",
        " !/\r\n/",
        "a/b//\n/",
        "<|endoftext|>",
        "<|im_start|>user",
        "\u{a0}\u{a0}x",
        "\u{2028}\u{2029}",
        "\u{feff}x",
        "👩‍👩‍👧‍👦",
        "\u{85}a",
        "a\t\tb",
        "\t\n\t",
        "\u{1c}x",
    ] {
        assert_equal(text);
    }
}

#[test]
fn special_tokens_are_ordinary_text() {
    for encoding in PUBLIC {
        assert!(encoding.count("<|endoftext|>") > 1);
    }
}

/// Random text that looks for trouble: runs, mixed classes, halves of merges.
fn awkward_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => "[ \t\n\r]{1,6}",
        3 => "[a-zA-Z]{1,12}",
        2 => "('s|'T|'re|'VE|'ll|'ſ|'x){1,2}",
        2 => "[0-9½²]{1,8}",
        2 => "[!-/:-@\\[-`]{1,6}",
        2 => "\\PC{1,6}",
        1 => "[\u{300}-\u{310}ʰǅ中文字ÀÉßéñ]{1,6}",
        1 => "[\u{900}-\u{97f}\u{e01}-\u{e30}\u{1f600}-\u{1f64f}]{1,8}",
        1 => "[a-c]{20,80}",
        1 => any::<String>(),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Random tokens one after the other: the neighbours that a merge could join wrongly.
fn token_soup() -> impl Strategy<Value = String> {
    prop::collection::vec(0_u32..100_256, 1..40).prop_map(|ranks| {
        let bytes = cl100k_base_singleton()
            .decode_bytes(&ranks)
            .expect("tokens");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn counts_equal_tiktoken(text in awkward_text()) {
        for encoding in PUBLIC {
            prop_assert_eq!(encoding.count(&text), reference(encoding).encode_ordinary(&text).len());
        }
    }

    #[test]
    fn soup_counts_equal_tiktoken(text in token_soup()) {
        for encoding in PUBLIC {
            prop_assert_eq!(encoding.count(&text), reference(encoding).encode_ordinary(&text).len());
        }
    }

    #[test]
    fn bytes_bound_the_count(text in awkward_text()) {
        for encoding in PUBLIC {
            let normal: String = text.nfkc().collect();
            prop_assert!(encoding.count(&text) <= bytes_bound(&text));
            prop_assert!(encoding.count(&normal) <= bytes_bound(&text));
        }
    }

    #[test]
    fn chat_never_panics(messages in any::<Vec<u8>>(), tools in any::<Option<Vec<u8>>>()) {
        let _ = Vocabulary::Unknown.count_chat(&messages, tools.as_deref());
    }

    #[test]
    fn broken_chat_never_panics(at in 0..CHAT.len(), byte in any::<u8>(), cut in 0..CHAT.len()) {
        let mut messages = CHAT.as_bytes().to_vec();
        messages[at] = byte;
        let vocabulary = Vocabulary::OpenAi(Encoding::Cl100k);
        let _ = vocabulary.count_chat(&messages, Some(&messages));
        let _ = vocabulary.count_chat(&messages[..cut], None);
    }

    #[test]
    fn broken_tokenizers_never_panic(at in 0..TOKENIZER.len(), byte in any::<u8>()) {
        let mut json = TOKENIZER.as_bytes().to_vec();
        json[at] = byte;
        if let Ok(vocabulary) = Vocabulary::from_tokenizer_json(&json) {
            let _ = vocabulary.count_text("low lower <s> \u{301}é");
        }
    }
}

#[test]
fn normal_forms_are_bounded() {
    for text in [
        "\u{1D160}",
        "\u{FDFA}",
        "\u{587}",
        "\u{15B}\u{323}",
        "\u{958}",
        "\u{344}",
    ] {
        let (nfc, nfkc) = (
            text.nfc().collect::<String>(),
            text.nfkc().collect::<String>(),
        );
        assert!(nfc.len().max(nfkc.len()) > text.len(), "{text:?} grows");
        assert!(bytes_bound(text) > nfc.len().max(nfkc.len()), "{text:?}");
    }
    assert_eq!(bytes_bound(""), 0);
    assert_eq!(bytes_bound("abc"), 4);
    assert_eq!(bytes_bound(&"\u{301}".repeat(1 << 20)), (2 << 20) + 1);
}

#[test]
fn hostile_texts_take_linear_time() {
    let megabyte = 1 << 20;
    for unit in [
        "a", "aA", " ", " \n", "!", "'", "1", "中", "\u{301}", "\u{1}", "ab", "AB中",
    ] {
        let text = unit.repeat(megabyte / unit.len());
        for encoding in PUBLIC {
            let start = Instant::now();
            assert!(encoding.count(&text) <= text.len());
            assert!(
                start.elapsed() < HOSTILE_TIME_MAX,
                "{encoding:?} of many {unit:?}"
            );
        }
    }
    assert_eq!(Encoding::Cl100k.count(&"a".repeat(200_000)), 25_000);
}

/// A prompt with everything in it.
const CHAT: &str = r#"[
    {"role": "system", "content": "Be brief."},
    {"role": "user", "name": "ada", "content": [{"type": "text", "text": "What is this?\n"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0=", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        {"type": "input_audio", "input_audio": {"data": "AAAABBBB", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f-1"}}]},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function",
        "function": {"name": "look", "arguments": "{\"at\": 1}"}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "a \ud83d\ude00 cat"}
]"#;

fn chat(messages: &str) -> Result<PromptCount, TokenError> {
    Vocabulary::OpenAi(Encoding::O200k).count_chat(messages.as_bytes(), None)
}

#[test]
fn plain_chats_are_exact() {
    let count = chat(r#"[{"role":"user","content":"hi"}]"#).expect("a prompt");
    assert_eq!((count.tokens, count.exact), (3 + 3 + 1 + 1, true));
    let count =
        chat(r#"[{"role":"user","name":"ada","content":"hi"},{"role":"user","content":null}]"#)
            .expect("a prompt");
    let name = Encoding::O200k.count("ada");
    assert_eq!(
        (count.tokens, count.exact),
        (3 + (3 + 1 + 1 + 1 + name) + (3 + 1), true)
    );
    let one_part = chat(r#"[{"role":"user","content":[{"type":"text","text":"hi"}]}]"#);
    assert_eq!(
        one_part.map(|count| (count.tokens, count.exact)),
        Ok((8, true))
    );
    assert_eq!(
        chat("[]").map(|count| (count.tokens, count.exact)),
        Ok((3, true))
    );
}

#[test]
fn escapes_are_text() {
    let escaped = chat(r#"[{"role":"user","content":"\u0068\u0069 \ud83d\ude00\n"}]"#);
    let plain = Encoding::O200k.count("hi 😀\n");
    assert_eq!(escaped.map(|count| count.tokens), Ok(7 + plain));
}

#[test]
fn everything_else_is_reported_apart() {
    let count = chat(CHAT).expect("a prompt");
    assert!(!count.exact);
    assert_eq!((count.images_low, count.images_other), (1, 1));
    assert_eq!(count.audio_clips, 1);
    assert!(
        (6..=12).contains(&count.audio_bytes),
        "{}",
        count.audio_bytes
    );
    assert_eq!(count.files, 1);
    assert!(count.file_bytes > 20);
    assert!(count.tokens < 200, "images are not text: {}", count.tokens);
}

#[test]
fn doubtful_members_are_never_exact() {
    for messages in [
        r#"[{"role":"user","content":"a","content":"b"}]"#,
        r#"[{"role":"user","content":"a","cache_control":{"type":"ephemeral"}}]"#,
        r#"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]"#,
    ] {
        let count = chat(messages).expect("a prompt");
        assert!(!count.exact, "{messages}");
        assert!(count.tokens > 7, "{messages}");
    }
}

#[test]
fn parts_that_we_do_not_know_are_files() {
    for part in [
        r#"{"type":"video_url","video_url":{"url":"https://a.example/v"}}"#,
        r#"{"type":"text","text":7}"#,
        r#"{"type":"text","type":"file","text":"a"}"#,
        r#"{"type":"input_audio","input_audio":{"id":"x"}}"#,
        "{}",
    ] {
        let count = chat(&format!(r#"[{{"role":"user","content":[{part}]}}]"#)).expect("a prompt");
        assert_eq!(count.files, 1, "{part}");
    }
    let doubled = r#"{"type":"image_url","image_url":{"detail":"low","detail":"high"}}"#;
    let count = chat(&format!(r#"[{{"role":"user","content":[{doubled}]}}]"#)).expect("a prompt");
    assert_eq!((count.images_low, count.images_other), (0, 1));
}

#[test]
fn escapes_in_undocumented_json_are_read() {
    use super::json::characters_read;
    let read = |text| characters_read(text);
    assert_eq!(read("plain"), None);
    assert_eq!(read(r"a\u0041b").as_deref(), Some("aAb"));
    assert_eq!(read(r"\ud83d\ude00\u4e2d").as_deref(), Some("😀中"));
    assert_eq!(read(r"\ud83dx\ude00").as_deref(), Some("\u{FFFD}x\u{FFFD}"));
    assert_eq!(read(r"\u\u12é4").as_deref(), Some("12é4"));
    let tools = format!(r#"[{{"description":"{}"}}]"#, r"\ufdfa".repeat(100));
    let count = Vocabulary::Unknown.count_chat(b"[]", Some(tools.as_bytes()));
    assert!(
        count.is_ok_and(|count| count.tokens > 100 * 33),
        "normal form NFKC"
    );
}

#[test]
fn tools_are_bounded() {
    let vocabulary = Vocabulary::OpenAi(Encoding::Cl100k);
    let tools = r#"[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#;
    let with = |tools: &str| {
        let count = vocabulary.count_chat(b"[]", Some(tools.as_bytes()));
        count.map(|count| (count.tokens, count.exact))
    };
    let (tokens, exact) = with(tools).expect("a prompt");
    assert!(tokens > Encoding::Cl100k.count(tools));
    assert!(!exact);
    assert_eq!(with("[]"), Ok((3, true)));
    assert_eq!(with("null"), Ok((3, true)));
    assert!(matches!(with("{}"), Err(TokenError::Shape(_))));
}

#[test]
fn other_formats_are_bounds() {
    let messages = br#"[{"role":"user","content":"hi"}]"#;
    for vocabulary in [
        Vocabulary::Unknown,
        Vocabulary::Harmony,
        Vocabulary::from_tokenizer_json(TOKENIZER.as_bytes()).expect("a tokenizer"),
    ] {
        let count = vocabulary.count_chat(messages, None).expect("a prompt");
        assert!(!count.exact);
        assert!((8..500).contains(&count.tokens));
    }
}

#[test]
fn bad_prompts_are_clear_errors() {
    let wrong: [(&[u8], &str); 9] = [
        (b"", "not valid JSON"),
        (b"{}", "must be an array"),
        (b"[1]", "each message must be an object"),
        (br#"[{"content":7}]"#, "content must be"),
        (br#"[{"content":[7]}]"#, "each content part"),
        (br#"[{"content":"\ud800"}]"#, "not valid JSON"),
        (br#"[{"content":"\ud800\u0041"}]"#, "not valid JSON"),
        (b"[{\"content\":\"\xff\"}]", "not UTF-8 at byte 13"),
        (b"[] []", "not valid JSON"),
    ];
    for (messages, said) in wrong {
        let error = Vocabulary::Unknown
            .count_chat(messages, None)
            .expect_err("an error");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn size_and_depth_are_limited() {
    let large = vec![b' '; JSON_BYTES_MAX + 1];
    let error = Vocabulary::Unknown
        .count_chat(&large, None)
        .expect_err("an error");
    assert!(matches!(error, TokenError::TooLarge { .. }), "{error}");
    for open in ["[", "{\"a\":"] {
        let deep = open.repeat(1_000_000);
        let error = Vocabulary::Unknown
            .count_chat(deep.as_bytes(), None)
            .expect_err("an error");
        assert!(matches!(error, TokenError::TooDeep { .. }), "{error}");
    }
    // Brackets in strings are text.
    let text = format!(r#"[{{"content":"{}\"["}}]"#, "[".repeat(1000));
    assert!(Vocabulary::Unknown
        .count_chat(text.as_bytes(), None)
        .is_ok());
}

/// A small byte-pair tokenizer in Hugging Face's form.
const TOKENIZER: &str = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":2,
    "strategy":"LongestFirst","stride":0},"padding":null,
    "added_tokens":[{"id":9,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,
        "normalized":false,"special":true}],
    "normalizer":{"type":"NFKC"},"pre_tokenizer":{"type":"Whitespace"},
    "post_processor":null,"decoder":null,
    "model":{"type":"BPE","dropout":null,"unk_token":"?","continuing_subword_prefix":null,
        "end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,
        "vocab":{"l":0,"o":1,"w":2,"e":3,"r":4,"lo":5,"low":6,"er":7,"?":8},
        "merges":["l o","lo w","e r"]}}"#;

#[test]
fn operators_tokenizers_are_exact() {
    let vocabulary = Vocabulary::from_tokenizer_json(TOKENIZER.as_bytes()).expect("a tokenizer");
    let exact = |tokens| TextCount {
        tokens,
        exact: true,
    };
    assert_eq!(vocabulary.count_text("low lower"), exact(3));
    assert_eq!(vocabulary.count_text(""), exact(0));
    // Neither cut to the file's truncation, nor read as the special token.
    assert_eq!(vocabulary.count_text("low low low low"), exact(4));
    assert_eq!(vocabulary.count_text("<s>"), exact(3));
}

#[test]
fn long_texts_are_bounded_in_their_normal_form() {
    let vocabulary = Vocabulary::from_tokenizer_json(TOKENIZER.as_bytes()).expect("a tokenizer");
    let text = "\u{FDFA}".repeat(300_000); // 3 bytes that NFKC makes 33
    let count = vocabulary.count_text(&text);
    assert!(!count.exact);
    assert!(count.tokens >= 300_000 * 33);
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    for json in ["", "{}", "[1", r#"{"model":{"type":"None"}}"#] {
        let error = Vocabulary::from_tokenizer_json(json.as_bytes())
            .err()
            .expect("an error");
        assert!(error
            .to_string()
            .starts_with("not a Hugging Face tokenizer.json"));
    }
    let large = vec![b' '; TOKENIZER_JSON_BYTES_MAX + 1];
    assert!(Vocabulary::from_tokenizer_json(&large).is_err());
}

#[test]
fn names_are_tiktokens() {
    for name in ["cl100k_base", "o200k_base", "o200k_harmony"] {
        let vocabulary = Vocabulary::public(name).expect(name);
        vocabulary.load();
        assert!(vocabulary.is_loaded());
    }
    assert!(Vocabulary::public("claude").is_none());
    assert!(Vocabulary::Unknown.is_loaded());
}
