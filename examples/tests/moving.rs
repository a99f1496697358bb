//! The airports in each kind of store, and from each to each.

use std::collections::BTreeMap;

use persistent_map::{DynBackend, PersistentMap, copy};
use persistent_map_examples::{AIRPORTS_CSV, Airport, Kind, backend, read};

type Map = PersistentMap<String, Airport, DynBackend<String, Airport>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn airports_arrive_from_each_kind_of_store_in_each_other() {
    let airports = read(AIRPORTS_CSV).unwrap();
    for first in Kind::ALL {
        for second in Kind::ALL {
            let dir = tempfile::tempdir().unwrap();
            let path = |kind: Kind, name: &str| {
                dir.path()
                    .join(format!("airports {name}.{}", kind.ending()))
            };
            let open = async |kind: Kind, name: &str| -> Map {
                let backend = backend(kind, &path(kind, name)).await.unwrap();
                PersistentMap::new(backend).await.unwrap()
            };
            let from = open(first, "from").await;
            from.insert_many(airports.clone()).await.unwrap();
            let to = open(second, "to").await;
            let copied = copy(&from, &to).await.unwrap();
            assert_eq!(
                (copied.entries, copied.verified),
                (7884, 7884),
                "{first:?} {second:?}"
            );
            from.close().await.unwrap();
            to.close().await.unwrap();
            if second != Kind::Memory {
                let found: BTreeMap<_, _> = open(second, "to").await.iter().collect();
                assert!(found == airports, "{first:?} to {second:?}");
            }
        }
    }
}
