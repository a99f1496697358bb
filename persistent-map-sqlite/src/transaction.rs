//! Statements as one commit, and what its failure leaves behind.

use std::sync::Arc;

use persistent_map_core::{PersistentError, Result};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, AssertSqlSafe, query, query_with};

use crate::connection::Connection;
use crate::failure::{leaves_no_trace, storage};

pub(crate) type Statement = (Arc<str>, SqliteArguments);

pub(crate) fn bind<'a, T>(arguments: &mut SqliteArguments, value: T) -> Result<()>
where
    T: sqlx::Encode<'a, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    arguments
        .add(value)
        .map_err(|error| PersistentError::storage("binding an argument", error))
}

impl Connection {
    /// Runs statements as one transaction. A single statement is one by itself.
    pub(crate) async fn commit(
        &mut self,
        statements: Vec<Statement>,
        doing: impl Fn() -> String,
    ) -> Result<()> {
        self.check_writing()?;
        let alone = statements.len() == 1;
        self.in_transaction = !alone;
        // A failure before COMMIT leaves nothing in the log that a crash could bring back.
        let mut at_commit = alone;
        let done = async {
            let sqlite = &mut self.sqlite;
            if !alone {
                query("BEGIN IMMEDIATE").execute(&mut *sqlite).await?;
            }
            for (sql, arguments) in statements {
                query_with(AssertSqlSafe(sql), arguments)
                    .execute(&mut *sqlite)
                    .await?;
            }
            if !alone {
                at_commit = true;
                query("COMMIT").execute(sqlite).await?;
            }
            Ok(())
        }
        .await;
        match done {
            Ok(()) => {
                self.in_transaction = false;
                self.merge_long_log(doing).await
            }
            Err(error) => {
                let definite = !at_commit || leaves_no_trace(&error);
                let error = storage(doing(), error);
                if self.undo(definite).await {
                    return Err(error);
                }
                Err(self.end_writing(error))
            }
        }
    }

    /// Refuses to write after a failure whose outcome is unknown.
    pub(crate) fn check_writing(&self) -> Result<()> {
        match &self.broken {
            None => Ok(()),
            Some(first) => Err(PersistentError::Poisoned {
                first: Arc::new(first.clone()),
            }),
        }
    }

    /// Nothing more is written after this failure, by no map of the file: what it has left on the disk cannot be told.
    pub(crate) fn end_writing(&mut self, error: PersistentError) -> PersistentError {
        let error = error.unknown();
        self.broken.get_or_insert_with(|| error.clone());
        error
    }

    /// Makes sure that a failed transaction stays gone. Returns false if that cannot be told.
    async fn undo(&mut self, definite: bool) -> bool {
        self.roll_back().await.is_ok() && (definite || self.barrier().await.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use persistent_map_core::Outcome;
    use sqlx::{query_scalar, raw_sql};
    use tempfile::TempDir;

    use super::*;
    use crate::database::Database;
    use crate::settings::{Settings, Synchronous};

    /// The driver refuses to run it. As with each error that is not SQLite's, nobody can tell whether it has run.
    const STRANGE: &str = "UPDATE persistent_map_state SET barrier = :name";
    const WRITE: &str = "INSERT INTO persistent_map_quarantine (map) VALUES ('x')";
    const WRONG: &str = "INSERT INTO nothing VALUES (1)";

    async fn open(synchronous: Synchronous) -> (TempDir, Database) {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            synchronous,
            ..Settings::new(dir.path().join("app.db"))
        };
        (dir, Database::open(settings).await.unwrap())
    }

    async fn commit(connection: &mut Connection, statements: &[&str]) -> Result<()> {
        let statements = statements.iter();
        let statements = statements.map(|sql| ((*sql).into(), SqliteArguments::default()));
        connection
            .commit(statements.collect(), || "trying".to_string())
            .await
    }

    async fn run(connection: &mut Connection, sql: &'static str) {
        let ran = raw_sql(sql).execute(&mut connection.sqlite).await;
        ran.unwrap();
    }

    async fn number(connection: &mut Connection, sql: &'static str) -> i64 {
        let number = query_scalar(sql).fetch_one(&mut connection.sqlite).await;
        number.unwrap()
    }

    async fn barriers(connection: &mut Connection) -> i64 {
        number(connection, "SELECT barrier FROM persistent_map_state").await
    }

    async fn rows(connection: &mut Connection) -> i64 {
        number(connection, "SELECT count(*) FROM persistent_map_quarantine").await
    }

    fn first_failure(result: Result<()>) -> String {
        match result.unwrap_err() {
            PersistentError::Poisoned { first } => first.to_string(),
            error => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn a_failure_that_certainly_left_nothing_needs_no_barrier_and_ends_nothing() {
        let (_dir, database) = open(Synchronous::Full).await;
        let mut connection = database.connection().await.unwrap();
        let before = barriers(&mut connection).await;
        for statements in [&[WRONG][..], &[WRITE, WRONG], &[WRITE, STRANGE]] {
            let error = commit(&mut connection, statements).await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
            assert!(!connection.in_transaction);
            assert_eq!(rows(&mut connection).await, 0, "half a transaction is left");
        }
        assert_eq!(barriers(&mut connection).await, before);
        commit(&mut connection, &[WRITE, WRITE]).await.unwrap();
        assert!(!connection.in_transaction);
        commit(&mut connection, &[WRITE]).await.unwrap();
        assert!(!connection.in_transaction);
        assert_eq!(rows(&mut connection).await, 3);
    }

    #[tokio::test]
    async fn a_failure_that_may_have_left_something_is_followed_by_a_barrier() {
        let (_dir, database) = open(Synchronous::Full).await;
        let mut connection = database.connection().await.unwrap();
        let before = barriers(&mut connection).await;
        let error = commit(&mut connection, &[STRANGE]).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
        assert_eq!(barriers(&mut connection).await, before + 1);
        commit(&mut connection, &[WRITE]).await.unwrap();
    }

    #[tokio::test]
    async fn after_an_unknown_outcome_no_map_of_the_file_writes() {
        let (dir, database) = open(Synchronous::Full).await;
        let mut connection = database.connection().await.unwrap();
        run(&mut connection, "PRAGMA query_only = ON").await;
        let first = commit(&mut connection, &[STRANGE]).await.unwrap_err();
        assert_eq!(first.outcome(), Outcome::Unknown, "{first}");
        // What was in the way is gone, and nobody may write all the same.
        run(&mut connection, "PRAGMA query_only = OFF").await;
        for statements in [&[WRITE][..], &[WRITE, WRITE], &[STRANGE]] {
            let refused = commit(&mut connection, statements).await;
            assert_eq!(first_failure(refused), first.to_string());
        }
        assert_eq!(rows(&mut connection).await, 0);
        drop(connection);
        close_and_open_again(database, &dir.path().join("app.db")).await;
    }

    #[tokio::test]
    async fn after_a_flush_that_failed_no_map_of_the_file_writes_or_flushes() {
        let (dir, database) = open(Synchronous::Normal).await;
        let mut connection = database.connection().await.unwrap();
        run(&mut connection, "PRAGMA query_only = ON").await;
        drop(connection);
        let first = database.flush().await.unwrap_err();
        assert_eq!(first.outcome(), Outcome::Unknown, "{first}");
        let mut connection = database.connection().await.unwrap();
        run(&mut connection, "PRAGMA query_only = OFF").await;
        let refused = commit(&mut connection, &[WRITE]).await;
        assert_eq!(first_failure(refused), first.to_string());
        drop(connection);
        assert_eq!(first_failure(database.flush().await), first.to_string());
        close_and_open_again(database, &dir.path().join("app.db")).await;
    }

    #[tokio::test]
    async fn each_level_is_as_it_was_after_an_open() {
        for (level, number_of_it) in [(Synchronous::Full, 2), (Synchronous::Normal, 1)] {
            let (dir, database) = open(level).await;
            let mut connection = database.connection().await.unwrap();
            connection.make_durable(dir.path()).await.unwrap();
            let found = number(&mut connection, "PRAGMA synchronous").await;
            assert_eq!(found, number_of_it);
        }
    }

    #[tokio::test]
    async fn a_commit_that_is_dropped_half_way_is_done_or_gone() {
        let (_dir, database) = open(Synchronous::Full).await;
        let mut stored = 0;
        for polls in 1..30 {
            let mut connection = database.connection().await.unwrap();
            let statements = [WRITE; 8];
            let commit = commit(&mut connection, &statements);
            persistent_map_testkit::drop_after_polls(commit, polls).await;
            drop(connection);
            let mut connection = database.connection().await.unwrap();
            let now = rows(&mut connection).await;
            assert!([stored, stored + 8].contains(&now), "{stored}, then {now}");
            super::tests::commit(&mut connection, &[WRITE, WRITE])
                .await
                .unwrap();
            stored = rows(&mut connection).await;
            assert_eq!(stored, now + 2);
        }
    }

    /// A flush that fails sets the level back.
    #[tokio::test]
    async fn the_level_is_as_it_was_after_a_flush() {
        for fails in [false, true] {
            let (_dir, database) = open(Synchronous::Normal).await;
            let mut connection = database.connection().await.unwrap();
            if fails {
                run(&mut connection, "PRAGMA query_only = ON").await;
            }
            let before = barriers(&mut connection).await;
            drop(connection);
            assert_eq!(database.flush().await.is_err(), fails);
            let mut connection = database.connection().await.unwrap();
            assert_eq!(number(&mut connection, "PRAGMA synchronous").await, 1);
            let made = barriers(&mut connection).await - before;
            assert_eq!(made, i64::from(!fails));
        }
    }

    #[tokio::test]
    async fn what_was_begun_and_abandoned_is_gone_before_the_next_use() {
        let (_dir, database) = open(Synchronous::Full).await;
        let mut connection = database.connection().await.unwrap();
        connection.in_transaction = true;
        run(&mut connection, "BEGIN IMMEDIATE").await;
        run(&mut connection, WRITE).await;
        drop(connection);
        let mut connection = database.connection().await.unwrap();
        assert!(!connection.in_transaction);
        assert_eq!(rows(&mut connection).await, 0);
        commit(&mut connection, &[WRITE, WRITE]).await.unwrap();
        assert_eq!(rows(&mut connection).await, 2);
    }

    #[tokio::test]
    async fn what_was_recovered_is_made_durable_once_and_not_for_each_map() {
        let (dir, database) = open(Synchronous::Full).await;
        let mut connection = database.connection().await.unwrap();
        let before = barriers(&mut connection).await;
        for _ in 0..3 {
            connection.make_durable(dir.path()).await.unwrap();
            assert_eq!(barriers(&mut connection).await, before + 1);
        }
    }

    /// The log stays, because the mark "in use" could not be taken off.
    async fn close_and_open_again(database: Database, path: &Path) {
        let mut connection = database.connection().await.unwrap();
        connection.make_durable(path).await.unwrap();
        drop(connection);
        Database::close(Arc::new(database)).await.unwrap();
        let again = Database::open(Settings::new(path.into())).await.unwrap();
        Database::close(Arc::new(again)).await.unwrap();
    }
}
