//! The backend keeps the contract, also when its process is killed.

use persistent_map_redb::RedbBackend;
use persistent_map_testkit::{Item, conformance, kills, open_with};

conformance!(
    redb,
    open_with::<String, Item, _, _>(
        |dir| async move { RedbBackend::open(dir.join("test.redb")).await }
    )
);

kills!(
    acknowledged_writes_survive_kills,
    open_with::<String, Item, _, _>(
        |dir| async move { RedbBackend::open(dir.join("test.redb")).await }
    )
);
