//! Names near the limit of the file system: either all works, or nothing is begun.

use std::fs;
use std::path::Path;

use persistent_map_core::{PersistentError, PersistentMap};
use persistent_map_csv::CsvBackend;

type Map = PersistentMap<u32, String, CsvBackend>;

fn names(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// A name that leaves no room for those beside it would take writes, and never merge them.
#[tokio::test]
async fn a_name_that_leaves_no_room_for_those_beside_it_is_refused() {
    let mut refusals = 0;
    for length in [200, 220, 227, 228, 229, 235, 240, 247, 248, 250, 251, 255] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("{}.csv", "n".repeat(length - 4)));
        let map: Map = match PersistentMap::new(CsvBackend::new(&path).merge_after(2000)).await {
            Ok(map) => map,
            Err(error) => {
                assert!(
                    matches!(error, PersistentError::Refused { .. }),
                    "{length}: {error}"
                );
                assert!(error.to_string().contains("too long"), "{length}: {error}");
                assert_eq!(names(dir.path()), 0, "{length}: something is left");
                refusals += 1;
                continue;
            }
        };
        for number in 0..100 {
            map.insert(number, "text, ".repeat(20)).await.unwrap();
        }
        map.flush().await.unwrap();
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert_eq!(lines, 101, "{length}");
        map.close().await.unwrap();
        assert_eq!(names(dir.path()), 2, "{length}: the table and its lock");
    }
    // On systems with this limit, which are most.
    #[cfg(unix)]
    assert_eq!(refusals, 8);
    #[cfg(not(unix))]
    assert!(refusals < 12);
}
