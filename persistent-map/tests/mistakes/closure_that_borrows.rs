//~ closure may outlive the current function, but it borrows `step`
//~ to force the closure to take ownership of `step` (and any other referenced variables), use the `move` keyword
use persistent_map::{PersistentMap, Result, in_memory::InMemoryBackend};

async fn play(map: &PersistentMap<String, u64, InMemoryBackend>, step: u64) -> Result<()> {
    map.update("hits", |hits| *hits += step).await?;
    Ok(())
}

fn main() {}
