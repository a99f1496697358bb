//! How long each path through the map takes, with a store that does nothing.

use std::hint::black_box;

use cost::{Nothing, entries, map, map_behind};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use persistent_map::in_memory::InMemoryBackend;
use tokio::runtime::{Builder, Runtime};

const ENTRIES: usize = 200_000;

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

fn reads(criterion: &mut Criterion) {
    let entries = entries(ENTRIES);
    let runtime = runtime();
    let map = runtime.block_on(map(Nothing::but(&entries)));
    let mut group = criterion.benchmark_group("reads");
    let mut keys = entries.iter().map(|(key, _)| key).cycle();
    let mut next = || keys.next().expect("it goes round");
    group.bench_function("get", |bencher| {
        bencher.iter(|| black_box(map.get(next())));
    });
    group.bench_function("with", |bencher| {
        bencher.iter(|| black_box(map.with(next(), String::len)));
    });
    group.bench_function("contains_key", |bencher| {
        bencher.iter(|| black_box(map.contains_key(next())));
    });
}

fn writes(criterion: &mut Criterion) {
    let runtime = runtime();
    let through = runtime.block_on(map(Nothing::default()));
    let behind = runtime.block_on(map_behind());
    let memory = runtime.block_on(map(InMemoryBackend::new()));
    let mut group = criterion.benchmark_group("writes");
    // The same entries again and again: what is measured is the way of a write, not a map that grows.
    let entries = entries(1000);
    let mut entries = entries.iter().cycle();
    let mut next = || entries.next().expect("it goes round").clone();
    group.bench_function("through", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            &mut next,
            |(key, value)| through.insert(key, value),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("behind", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            &mut next,
            |(key, value)| behind.insert(key, value),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("memory", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            &mut next,
            |(key, value)| memory.insert(key, value),
            BatchSize::SmallInput,
        );
    });
}

fn batches(criterion: &mut Criterion) {
    let runtime = runtime();
    let map = runtime.block_on(map(Nothing::default()));
    let mut group = criterion.benchmark_group("batches");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("insert_many", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || entries(1000),
            |entries| map.insert_many(entries),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(paths, reads, writes, batches);
criterion_main!(paths);
