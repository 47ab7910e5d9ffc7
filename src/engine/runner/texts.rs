//! Runbooks by hash: a run has the text it started with, whatever the files hold now.
//!
//! Invariant: a returned runbook has exactly the requested hash.

use crate::catalog::{self, Catalog};
use crate::limits;
use crate::model::RunbookPin;
use crate::script::{self, Runbook};
use crate::store::{RunJournal, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Compiled runbooks, the current ones and those that unfinished runs still hold.
pub struct RunbookCache {
    journal: Arc<dyn RunJournal>,
    catalog: Arc<Catalog>,
    old: Mutex<HashMap<String, Arc<Runbook>>>,
}

impl RunbookCache {
    /// Texts from the catalog, and older ones from the store.
    pub fn new(journal: Arc<dyn RunJournal>, catalog: Arc<Catalog>) -> RunbookCache {
        RunbookCache { journal, catalog, old: Mutex::default() }
    }

    /// The runbook with this hash; `None` if its text is not kept or no longer compiles with this program.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn find(&self, pin: &RunbookPin) -> Result<Option<Arc<Runbook>>, StoreError> {
        if let Some(current) = self.catalog.current().runbooks.get(&pin.name)
            && current.pin.hash == pin.hash
        {
            return Ok(Some(current.clone()));
        }
        if let Some(known) = self.old.lock().unwrap_or_else(PoisonError::into_inner).get(&pin.hash) {
            return Ok(Some(known.clone()));
        }
        let Some(text) = self.journal.pinned(&pin.hash).await? else { return Ok(None) };
        let name = pin.name.clone();
        let compiled = tokio::task::spawn_blocking(move || script::compile(&name, &text, catalog::host_api())).await;
        let Ok(Ok(runbook)) = compiled else { return Ok(None) };
        if runbook.pin.hash != pin.hash {
            return Ok(None);
        }
        let runbook = Arc::new(runbook);
        let mut old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
        if old.len() >= limits::OLD_RUNBOOKS {
            old.clear();
        }
        old.insert(pin.hash.clone(), runbook.clone());
        Ok(Some(runbook))
    }
}
