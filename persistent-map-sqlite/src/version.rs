//! Which SQLite the program was built with, and where an old one is dangerous.

use std::path::Path;

use persistent_map_core::Result;
use persistent_map_file::refused;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, query_scalar};

use crate::failure::storage;
use crate::file::IN_MEMORY;
use crate::settings::Settings;

/// The first version whose log does not lose committed transactions when one connection merges it while another one writes
/// (<https://www.sqlite.org/wal.html#walresetbug>).
const FLOOR: (u32, u32, u32) = (3, 51, 3);

/// Asked, and not taken from the manifest: another crate of the program may decide it.
pub(crate) async fn running() -> Result<String> {
    let version = async {
        let mut sqlite = SqliteConnectOptions::new()
            .in_memory(true)
            .disable_statement_logging()
            .connect()
            .await?;
        let version = query_scalar("SELECT sqlite_version()")
            .fetch_one(&mut sqlite)
            .await?;
        sqlite.close().await?;
        Ok(version)
    };
    version
        .await
        .map_err(|error| storage("asking SQLite for its version", error))
}

/// Whether other processes may open the file as well. One connection that has the file to itself never meets the bug.
pub(crate) fn matters(settings: &Settings) -> bool {
    settings.shared_reads && settings.path != Path::new(IN_MEMORY)
}

/// Refuses an old version where it [`matters`].
pub(crate) fn check(version: &str, settings: &Settings) -> Result<()> {
    if !matters(settings) || parse(version) >= Some(FLOOR) {
        return Ok(());
    }
    let (x, y, z) = FLOOR;
    Err(refused(
        &settings.path,
        format!(
            "`shared_reads` is set, and this program was built with SQLite {version}, which can lose committed \
             transactions of a file that others have open, too"
        ),
        &format!(
            "Open it without `shared_reads`, or build the program with SQLite {x}.{y}.{z} or later: \
             `cargo tree -i libsqlite3-sys` shows which crate holds it back"
        ),
        None,
    ))
}

fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(parse("3.51.3") < parse("3.60.0"));
        assert!(parse("3.9.0") < parse("3.51.3"));
        assert_eq!(parse("x"), None);
    }

    #[test]
    fn an_old_version_is_refused_only_where_others_may_have_the_file_open() {
        let settings = |path: &str, shared_reads| Settings {
            shared_reads,
            ..Settings::new(path.into())
        };
        for version in ["3.7.0", "3.46.0", "3.51.2", "unknown"] {
            assert!(check(version, &settings("app.db", false)).is_ok());
            assert!(check(version, &settings(IN_MEMORY, true)).is_ok());
            let error = check(version, &settings("app.db", true)).unwrap_err();
            for word in ["app.db", version, "without `shared_reads`", "3.51.3"] {
                assert!(error.to_string().contains(word), "{word}: {error}");
            }
        }
        for version in ["3.51.3", "3.52.0", "4.0.0"] {
            assert!(check(version, &settings("app.db", true)).is_ok());
        }
    }
}
