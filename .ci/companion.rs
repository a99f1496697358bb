//! A map in a program with an old SQLite: it works, and `shared_reads` is refused.

use persistent_map::{PersistentMap, Result, sqlite::SqliteBackend};

#[tokio::main]
async fn main() -> Result<()> {
    let path = std::env::args().nth(1).expect("the path of a database");
    for n in 0..3 {
        let map = PersistentMap::new(SqliteBackend::new(&path).await?).await?;
        assert_eq!(map.len(), n);
        map.insert(n as u64, "x".repeat(n)).await?;
        assert_eq!(map.verify().await?, n as u64 + 1);
        map.close().await?;
    }
    let shared = SqliteBackend::builder(&path).shared_reads(true).open().await;
    let error = shared.expect_err("SQLite is old").to_string();
    assert!(error.contains("can lose committed transactions"), "{error}");
    println!("{error}");
    Ok(())
}
