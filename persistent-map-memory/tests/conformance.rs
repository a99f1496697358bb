//! The contract: as far as it goes without a store, and as a store behind a backend that wants to be called.

use persistent_map_core::{PersistentError, PersistentMap, StorageBackend, collect, copy};
use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::{Faults, Item, conformance, open_with};

conformance!(
    in_memory,
    open_with::<String, Item, _, _>(|_dir| async { Ok(InMemoryBackend::new()) })
);

conformance!(
    behind_another_backend,
    open_with::<String, Item, _, _>(|_dir| async {
        Ok(Faults::new().wrap(InMemoryBackend::new()))
    })
);

#[tokio::test]
async fn what_another_backend_has_written_is_read_back_and_copied()
-> persistent_map_core::Result<()> {
    let map = PersistentMap::new(Faults::new().wrap(InMemoryBackend::new())).await?;
    map.insert_many((0..10).map(|n| (n, n.to_string()))).await?;
    map.remove(&3).await?;
    assert_eq!(map.verify().await?, 9);
    let other = PersistentMap::new(Faults::new().wrap(InMemoryBackend::new())).await?;
    assert_eq!(copy(&map, &other).await?.verified, 9);
    map.clear().await?;
    assert_eq!(map.verify().await?, 0);
    Ok(())
}

#[tokio::test]
async fn other_types_are_refused_and_may_replace_what_is_there() -> persistent_map_core::Result<()>
{
    let backend = InMemoryBackend::new();
    backend.save(1_u8, 1_u8).await?;
    let refused = collect::<u8, String, _>(&backend).await;
    assert!(matches!(refused, Err(PersistentError::Mismatch { .. })));
    backend.replace(vec![(1_u8, "one".to_string())]).await?;
    assert_eq!(collect::<u8, String, _>(&backend).await?[&1], "one");
    Ok(())
}
