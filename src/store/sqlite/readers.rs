//! A few connections that cannot write, each on a thread of its own while it works.
//!
//! Invariant: a read sees only what is committed.

use super::schema;
use crate::limits;
use crate::store::StoreError;
use crate::store::db::Db;
use crate::store::ops::parked::UnreadableRows;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Connections for reading.
#[derive(Clone)]
pub(super) struct ReaderPool {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
    /// Rows that could not be read, for the next tick.
    pub unreadable: UnreadableRows,
}

impl ReaderPool {
    /// Readers of this database; connections open when they are needed.
    pub fn new(path: PathBuf) -> ReaderPool {
        ReaderPool {
            path,
            idle: Arc::default(),
            turns: Arc::new(Semaphore::new(limits::READERS)),
            unreadable: UnreadableRows::default(),
        }
    }

    /// Runs a query on a read connection, on a thread that may block.
    ///
    /// # Errors
    ///
    /// Fails when the store is closed, the database cannot be opened, or the query fails.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Db) -> Result<T, StoreError> + Send + 'static,
    {
        self.with(move |conn| query(conn)).await
    }

    /// The same with the connection itself, for words that only SQLite has.
    pub async fn with<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let closed = || StoreError::Database("the store is closed".to_owned());
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| closed())?;
        let (idle, path) = (self.idle.clone(), self.path.clone());
        let work = move || {
            let _turn = turn;
            let free = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let conn = free.map_or_else(|| schema::open_reader(&path), Ok)?;
            let result = query(&conn);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            result
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(panic) => Err(StoreError::Database(format!("a read did not end: {panic}"))),
        }
    }

    /// Ends further reads, and closes idle connections.
    pub fn close(&self) {
        self.turns.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
