//! Durable appends by group commit: throughput, and how long one waits, with 1, 64 and 1000
//! records under way at a time, the way one event loop keeps them.
//!
//! `JOURNAL_BENCH_DIR` names a folder on the disk to measure; without it, the temporary folder.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use cascaded_journal::{AppendError, Changes, Class, Journal, Options};
use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use rustix::event::{poll, PollFd, PollFlags};

const TAG: u8 = 1;
/// About a reservation over a dozen counters.
const PAYLOAD: [u8; 160] = [7; 160];
/// Records between checkpoints, so that segments are retired as in real life.
const CHECKPOINT_EVERY: u64 = 20_000;

struct Loop {
    journal: Journal,
    under_way: VecDeque<(u64, Instant)>,
    waits: Vec<Duration>,
    next_checkpoint: u64,
}

impl Loop {
    fn new(journal: Journal) -> Self {
        let next_checkpoint = CHECKPOINT_EVERY;
        Self {
            journal,
            under_way: VecDeque::new(),
            waits: Vec::new(),
            next_checkpoint,
        }
    }

    /// Makes `count` records durable with up to `waiters` under way.
    fn run(&mut self, waiters: usize, count: u64) {
        let mut appended = 0;
        while appended < count || !self.under_way.is_empty() {
            while appended < count && self.under_way.len() < waiters && self.append() {
                appended += 1;
            }
            self.drain();
        }
        self.checkpoint();
    }

    fn append(&mut self) -> bool {
        match self.journal.append(Class::Hold, TAG, black_box(&PAYLOAD)) {
            Ok(seq) => {
                self.under_way.push_back((seq, Instant::now()));
                true
            }
            Err(AppendError::Busy) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn drain(&mut self) {
        if self.under_way.is_empty() {
            // The next segment is being prepared.
            std::thread::sleep(Duration::from_micros(100));
            return;
        }
        let fd = self.journal.event_fd();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).expect("a descriptor to poll");
        self.journal.clear_event();
        let durable = self.journal.durable_seq();
        assert!(self.journal.fault().is_none());
        let now = Instant::now();
        while let Some((_, since)) = self.under_way.front().filter(|(seq, _)| *seq <= durable) {
            self.waits.push(now - *since);
            self.under_way.pop_front();
        }
    }

    fn checkpoint(&mut self) {
        let durable = self.journal.durable_seq();
        if durable >= self.next_checkpoint {
            self.journal
                .checkpoint(durable, &Changes::default())
                .expect("a checkpoint");
            self.next_checkpoint = durable + CHECKPOINT_EVERY;
        }
    }

    fn report(&mut self, waiters: usize) {
        self.waits.sort_unstable();
        let at = |per_mille: usize| self.waits[(self.waits.len() - 1) * per_mille / 1000];
        let stats = self.journal.stats();
        println!(
            "{waiters} under way: wait p50 {:?}, p99 {:?}; flush p50 < {:?} ns, p99 < {:?} ns; \
             {:.1} records a batch",
            at(500),
            at(990),
            stats.flush.quantile_ns(500),
            stats.flush.quantile_ns(990),
            stats.records as f64 / stats.batches as f64
        );
    }
}

fn durable_append(c: &mut Criterion) {
    let mut group = c.benchmark_group("durable_append");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(4));
    for waiters in [1, 64, 1000] {
        let parent = std::env::var_os("JOURNAL_BENCH_DIR").map(Into::into);
        let parent = parent.unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::tempdir_in(parent).expect("a folder");
        let options = Options {
            record_tags: vec![TAG],
            ..Options::default()
        };
        let (journal, _) = Journal::open(dir.path(), options).expect("a new journal");
        let mut event_loop = Loop::new(journal);
        let records = 10 * waiters as u64;
        group.throughput(Throughput::Elements(records));
        group.bench_function(BenchmarkId::from_parameter(waiters), |bencher| {
            bencher.iter(|| event_loop.run(waiters, records));
        });
        event_loop.report(waiters);
    }
    group.finish();
}

criterion_group!(benches, durable_append);
criterion_main!(benches);
