//~ `Player` cannot be the value of a map
//~ a value is `Clone + Send + Sync + 'static`, and derives serde's `Serialize` and `Deserialize`
//~ consider adding `#[derive(serde::Deserialize)]` to your `Player` type
use persistent_map::{PersistentMap, Result, in_memory::InMemoryBackend};

#[derive(Clone, serde::Serialize)]
struct Player {
    score: u32,
}

async fn play() -> Result<()> {
    let map = PersistentMap::new(InMemoryBackend::new()).await?;
    map.insert("ann".to_string(), Player { score: 1 }).await?;
    Ok(())
}

fn main() {}
