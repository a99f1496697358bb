//! The contract, as far as it goes without a store.

use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::{Item, conformance, open_with};

conformance!(
    in_memory,
    open_with::<String, Item, _, _>(|_dir| async { Ok(InMemoryBackend::new()) })
);
