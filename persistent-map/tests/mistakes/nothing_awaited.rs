//~ unused implementer of `Future` that must be used
//~ futures do nothing unless you `.await` or poll them
//~ nothing is copied until it is awaited
#![deny(unused_must_use)]
use persistent_map::{PersistentMap, copy, in_memory::InMemoryBackend};

async fn play(map: &PersistentMap<String, u64, InMemoryBackend>) {
    map.insert("a".to_string(), 1);
    copy(map, map);
}

fn main() {}
