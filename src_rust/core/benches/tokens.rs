//! How fast tokens are counted: prose, and what would hurt most.

use std::hint::black_box;

use cascaded_core::tokens::{Encoding, Vocabulary};
use criterion::{criterion_group, criterion_main, Criterion, Throughput};

const PROSE: &str = "Whereas recognition of the inherent dignity and of the equal and inalienable \
    rights of all members of the human family is the foundation of freedom, justice and peace in \
    the world; and it's said that 3 of 10 people haven't read it (yet).\n\n";

/// Letters and digits without order, as base64 has them.
fn base64_noise(bytes: usize) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = 0x2545_F491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(ALPHABET[(state % 64) as usize])
    };
    (0..bytes).map(|_| next()).collect()
}

fn texts(criterion: &mut Criterion) {
    let inputs = [
        ("prose_1mb", PROSE.repeat((1 << 20) / PROSE.len())),
        ("one_letter_200k", "a".repeat(200_000)),
        ("base64_5mb", base64_noise(5_000_000)),
        ("spaces_1mb", " ".repeat(1 << 20) + "x"),
    ];
    for encoding in [Encoding::Cl100k, Encoding::O200k] {
        encoding.load();
        let mut group = criterion.benchmark_group(format!("{encoding:?}"));
        group.sample_size(10);
        for (name, text) in &inputs {
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(*name, |bencher| {
                bencher.iter(|| encoding.count(black_box(text)));
            });
        }
        group.finish();
    }
}

fn chats(criterion: &mut Criterion) {
    let message = format!(r#"{{"role":"user","content":{PROSE:?}}}"#);
    let messages = format!("[{}]", vec![message; 4].join(","));
    let vocabulary = Vocabulary::OpenAi(Encoding::O200k);
    let mut group = criterion.benchmark_group("chat");
    group.throughput(Throughput::Bytes(messages.len() as u64));
    group.bench_function("1kb", |bencher| {
        bencher.iter(|| vocabulary.count_chat(black_box(messages.as_bytes()), None));
    });
    group.finish();
}

criterion_group!(benches, texts, chats);
criterion_main!(benches);
