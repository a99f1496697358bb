//~ `&str` is not a backend for keys of type `String` and values of type `u64`
//~ a map needs a backend, such as `SqliteBackend`
use persistent_map::{PersistentMap, Result};

async fn play() -> Result<()> {
    PersistentMap::<String, u64, _>::new("app.db").await?;
    Ok(())
}

fn main() {}
