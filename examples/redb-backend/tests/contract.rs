//! The backend keeps the contract, also when its process is killed.

use persistent_map_redb::RedbBackend;
use persistent_map_testkit::{Item, Odd, byte_conformance, conformance, kills, open_with};

conformance!(
    redb,
    open_with::<String, Item, _, _>(
        |dir| async move { RedbBackend::open(dir.join("test.redb")).await }
    )
);

conformance!(
    values_that_many_formats_lose,
    open_with::<(u32, bool), Odd, _, _>(|dir| async move {
        RedbBackend::open(dir.join("test.redb")).await
    })
);

byte_conformance!(
    bytes,
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
