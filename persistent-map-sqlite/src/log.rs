//! The log of a database with `Synchronous::Normal`: merged from here, because SQLite would not say that it failed.
//!
//! With FULL, each commit has synced its part of the log. A merge that fails then loses nothing, and SQLite tries again by
//! itself. With NORMAL, it is the merge that syncs the log, and what SQLite merges unasked (`wal_autocheckpoint`) has no
//! answer: after a sync that failed, the system takes the lost pages for written, and the sync of a later `flush` would
//! answer success.

use std::fs;

use persistent_map_core::Result;
use sqlx::query;

use crate::connection::Connection;
use crate::failure::{leaves_no_trace, storage};

/// A log of this length is merged: about 1,000 pages, like SQLite's own.
pub(crate) const LONG: u64 = 4 << 20;

impl Connection {
    /// After a commit. The file is as long as what it holds, because with NORMAL `journal_size_limit` is 0.
    pub(crate) async fn merge_long_log(&mut self, doing: impl Fn() -> String) -> Result<()> {
        let Some(log) = &self.log else {
            return Ok(());
        };
        if fs::metadata(log).map_or(0, |log| log.len()) < LONG {
            return Ok(());
        }
        // Like SQLite's own, it merges what no reader needs, and waits for nobody.
        let merged = query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&mut self.sqlite)
            .await;
        match merged {
            Ok(_) => Ok(()),
            // The log is as it was, and is merged after the next commit.
            Err(error) if leaves_no_trace(&error) => {
                tracing::warn!(target: "persistent_map", %error, "the log could not be merged");
                Ok(())
            }
            Err(error) => {
                let doing = format!("merging the log after {}", doing());
                Err(self.end_writing(storage(doing, error)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use persistent_map_core::PersistentMap;
    use sqlx::{query_scalar, raw_sql};

    use super::*;
    use crate::database::Database;
    use crate::settings::{Settings, Synchronous};
    use crate::{SqliteBackend, SqliteMap};

    async fn open(path: &Path) -> SqliteMap<u32, String> {
        let backend = SqliteBackend::builder(path).synchronous(Synchronous::Normal);
        PersistentMap::new(backend.open().await.unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_long_log_is_merged_and_used_again_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        let map = open(&path).await;
        let length = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
        let (mut longest, mut begun_anew, mut before) = (0, 0, 0);
        for n in 0..60 {
            map.insert(n, "x".repeat(256 << 10)).await.unwrap();
            let now = length("app.db-wal");
            longest = longest.max(now);
            begun_anew += u32::from(now < before);
            before = now;
        }
        assert!(
            (LONG..LONG + (1 << 20)).contains(&longest),
            "the log had {longest} bytes"
        );
        assert!(
            (2..=4).contains(&begun_anew),
            "begun anew {begun_anew} times"
        );
        // 15 MiB were written, of which at most one log is not merged.
        assert!(length("app.db") > 10 << 20, "{}", length("app.db"));
        map.close().await.unwrap();
        assert_eq!(open(&path).await.len(), 60);
    }

    /// With FULL by SQLite, with NORMAL from here.
    #[tokio::test]
    async fn each_log_is_merged_by_one_of_the_two() {
        let dir = tempfile::tempdir().unwrap();
        for (synchronous, merged_from, limit) in [
            (Synchronous::Full, 1000, 64 << 20),
            (Synchronous::Normal, 0, 0),
        ] {
            let settings = Settings {
                synchronous,
                ..Settings::new(dir.path().join(format!("{merged_from}.db")))
            };
            let database = Database::open(settings).await.unwrap();
            let mut connection = database.connection().await.unwrap();
            assert_eq!(connection.log.is_some(), merged_from == 0);
            for (pragma, wanted) in [
                ("PRAGMA wal_autocheckpoint", merged_from),
                ("PRAGMA journal_size_limit", limit),
            ] {
                let found: i64 = query_scalar(pragma)
                    .fetch_one(&mut connection.sqlite)
                    .await
                    .unwrap();
                assert_eq!(found, wanted, "{pragma} with {synchronous:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_merged_for_now_is_merged_later() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            synchronous: Synchronous::Normal,
            ..Settings::new(dir.path().join("app.db"))
        };
        let path = settings.path.clone();
        let database = Database::open(settings).await.unwrap();
        let mut connection = database.connection().await.unwrap();
        let log = connection.log.clone().unwrap();
        assert_eq!(log, dir.path().join("app.db-wal"));
        // A checkpoint within a transaction is an error, and leaves nothing behind.
        raw_sql("CREATE TABLE t (x); BEGIN; INSERT INTO t VALUES (zeroblob(5000000));")
            .execute(&mut connection.sqlite)
            .await
            .unwrap();
        let elsewhere = dir.path().join("long");
        fs::write(&elsewhere, vec![0; usize::try_from(LONG).unwrap()]).unwrap();
        connection.log = Some(elsewhere);
        let doing = || "trying".to_string();
        connection.merge_long_log(doing).await.unwrap();
        assert!(connection.broken.is_none());
        assert!(fs::metadata(&path).unwrap().len() < LONG, "it was merged");
        connection.log = Some(log.clone());
        raw_sql("COMMIT")
            .execute(&mut connection.sqlite)
            .await
            .unwrap();
        connection.merge_long_log(doing).await.unwrap();
        assert!(
            fs::metadata(&path).unwrap().len() > LONG,
            "it was not merged"
        );
        let left: (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)")
            .fetch_one(&mut connection.sqlite)
            .await
            .unwrap();
        assert_eq!((left.0, left.1), (0, left.2));
        let rows: i64 = query_scalar("SELECT count(*) FROM t")
            .fetch_one(&mut connection.sqlite)
            .await
            .unwrap();
        assert_eq!(rows, 1);
    }
}
