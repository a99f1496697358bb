//! The backend of the `custom_backend` example keeps the contract, also when its process is killed.

use persistent_map_testkit::{conformance, kills, open_with};

#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is a program of its own, whose `main` is not run here"
)]
#[path = "../custom_backend.rs"]
mod custom_backend;

conformance!(
    json_file,
    open_with::<String, String, _, _>(|dir| async move {
        custom_backend::JsonFile::open(dir.join("entries.json"))
    })
    .without_lock()
);

kills!(
    acknowledged_writes_survive_kills,
    open_with::<String, String, _, _>(|dir| async move {
        custom_backend::JsonFile::open(dir.join("entries.json"))
    })
);
