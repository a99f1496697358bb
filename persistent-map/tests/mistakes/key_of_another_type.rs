//~ the trait bound `String: Borrow<{integer}>` is not satisfied
use persistent_map::{PersistentMap, in_memory::InMemoryBackend};

fn play(map: &PersistentMap<String, u64, InMemoryBackend>) {
    map.get(&1);
}

fn main() {}
