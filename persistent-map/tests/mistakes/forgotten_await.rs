//~ consider `await`ing on the `Future`
use persistent_map::{PersistentMap, Result, in_memory::InMemoryBackend};

async fn play(map: &PersistentMap<String, u64, InMemoryBackend>) -> Result<()> {
    let old: Option<u64> = map.insert("a".to_string(), 1)?;
    drop(old);
    Ok(())
}

fn main() {}
