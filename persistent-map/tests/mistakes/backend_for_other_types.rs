//~ `Shelf` is not a backend for keys of type `u64` and values of type `String`
//~ but trait `StorageBackend<String, u32>` is implemented for it
use persistent_map::{PersistentMap, Result, StorageBackend, async_trait};
use std::collections::HashMap;

struct Shelf;

#[async_trait]
impl StorageBackend<String, u32> for Shelf {
    async fn load_all(&self) -> Result<HashMap<String, u32>> {
        Ok(HashMap::new())
    }
    async fn save(&self, _: String, _: u32) -> Result<()> {
        Ok(())
    }
    async fn delete(&self, _: &String) -> Result<()> {
        Ok(())
    }
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

async fn play() -> Result<()> {
    PersistentMap::<u64, String, _>::new(Shelf).await?;
    Ok(())
}

fn main() {}
