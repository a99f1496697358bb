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
        if let Some(first) = &self.broken {
            return Err(PersistentError::Poisoned {
                first: Arc::new(first.clone()),
            });
        }
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
                Ok(())
            }
            Err(error) => {
                let definite = !at_commit || leaves_no_trace(&error);
                let error = storage(doing(), error);
                if self.undo(definite).await {
                    return Err(error);
                }
                let error = error.unknown();
                self.broken = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Makes sure that a failed transaction stays gone. Returns false if that cannot be told.
    async fn undo(&mut self, definite: bool) -> bool {
        self.roll_back().await.is_ok() && (definite || self.barrier().await.is_ok())
    }
}
