//! The tables of GPU faults in the folder of rules: `xid.yaml`, and a site's changes to it in `xid.site.yaml`.
//!
//! Invariant: a table that is wrong keeps its last good text in force, as any file does.

use super::CatalogProblem;
use super::files::FileContent;
use crate::policy::XidTable;
use std::sync::Arc;

/// The files that are tables and no rules, in the order in which they are laid over the compiled-in table.
pub(super) const NAMES: [&str; 2] = ["xid", "xid.site"];

/// Each file must make sense over the table that is compiled in.
pub(super) fn parse(file: &FileContent) -> (Option<String>, Vec<CatalogProblem>) {
    match XidTable::default().overlaid(&file.text) {
        Ok(_) => (Some(file.text.clone()), Vec::new()),
        Err(error) => {
            let text = error.to_string().replace("<input>", &file.path);
            (None, vec![CatalogProblem { file: file.path.clone(), text, fatal: true }])
        }
    }
}

/// The table in force.
pub(super) fn lay(mut texts: Vec<(&str, &str)>) -> Arc<XidTable> {
    texts.sort_by_key(|(name, _)| NAMES.iter().position(|known| known == name));
    let table = texts.into_iter().fold(XidTable::default(), |table, (_, text)| match table.overlaid(text) {
        Ok(over) => over,
        // Both were read alone and hold whole rows, so one cannot break the other.
        Err(error) => unreachable!("a table that was read does not fit over another: {error}"),
    });
    Arc::new(table)
}
