//! The contract, with each setting and codec that changes what is written.

use persistent_map_core::{Json, MessagePack};
use persistent_map_sqlite::{SqliteBackend, Synchronous};
use persistent_map_testkit::{Item, Odd, byte_conformance, conformance, open_with};

conformance!(
    default_settings,
    open_with::<String, Item, _, _>(
        |dir| async move { SqliteBackend::new(dir.join("test.db")).await }
    )
);

conformance!(
    other_settings,
    open_with::<u64, String, _, _>(|dir| async move {
        SqliteBackend::builder(dir.join("test.db"))
            .table("Some-Other_table")
            .synchronous(Synchronous::Normal)
            .shared_reads(true)
            .codec(MessagePack)
            .open()
            .await
    })
);

conformance!(
    a_second_table,
    open_with::<String, Item, _, _>(|dir| async move {
        let database = SqliteBackend::new(dir.join("test.db")).await?;
        database.table_with_codec("second", Json).await
    })
);

conformance!(
    volatile,
    open_with::<String, Item, _, _>(|_dir| async { SqliteBackend::new(":memory:").await })
);

conformance!(
    values_that_many_formats_lose,
    open_with::<String, Odd, _, _>(
        |dir| async move { SqliteBackend::new(dir.join("test.db")).await }
    )
);

byte_conformance!(
    bytes,
    open_with::<String, Item, _, _>(
        |dir| async move { SqliteBackend::new(dir.join("test.db")).await }
    )
);

byte_conformance!(
    volatile_bytes,
    open_with::<String, Item, _, _>(|_dir| async { SqliteBackend::new(":memory:").await })
);
