//~ `Id` cannot be the key of a map
//~ the trait `Hash` is not implemented for `Id`
//~ consider annotating `Id` with `#[derive(Hash)]`
use persistent_map::{PersistentMap, Result, in_memory::InMemoryBackend};

#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Id(u64);

async fn play() -> Result<()> {
    let map = PersistentMap::new(InMemoryBackend::new()).await?;
    map.insert(Id(1), 1u32).await?;
    Ok(())
}

fn main() {}
