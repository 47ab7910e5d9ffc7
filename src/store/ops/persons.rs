//! Maps a name in the ledger to a user: the maker of the token that bears it may have kept it.
//!
//! Invariant: decided in the transaction that counts users, so that two answers at one moment cannot be one user's.

use super::subjects;
use crate::model::{LOCAL, identity};
use crate::planted::planted;
use crate::store::StoreError;
use crate::store::db::{Db, all, number};
use std::collections::BTreeSet;

/// One user as far as known: by which name, and which others may have the same credential.
struct CredentialHolder {
    name: String,
    all: BTreeSet<String>,
}

impl CredentialHolder {
    fn of(conn: &dyn Db, name: &str) -> Result<CredentialHolder, StoreError> {
        let name = identity(name);
        // The name with break-glass access is the user's own claim; all that is certain is that they had this machine's
        // own token.
        let glass =
            number(conn, "SELECT count(*) FROM api_token WHERE name = ?1 AND incident IS NOT NULL", [name])? > 0;
        let name = if glass { LOCAL } else { name };
        let sql = "SELECT DISTINCT root FROM api_token WHERE name = ?1 AND root IS NOT NULL AND incident IS NULL";
        let mut all: BTreeSet<String> =
            all(conn, sql, [name], |row| row.get::<String>(0))?.iter().map(|root| identity(root).to_owned()).collect();
        all.insert(name.to_owned());
        for known in all.clone() {
            all.extend(subjects::names(conn, &known)?);
        }
        Ok(CredentialHolder { name: name.to_owned(), all })
    }

    /// This machine's own token may be behind many: its holders can be named in the configuration, so its requests are
    /// different users. The token itself, and break-glass access, may be any of them.
    fn may_be(&self, other: &CredentialHolder) -> bool {
        let shared = || self.all.intersection(&other.all).any(|name| name != LOCAL);
        let unnamed = (self.name == LOCAL || other.name == LOCAL) && !planted("local-is-a-person");
        unnamed || self.all.contains(&other.name) || other.all.contains(&self.name) || shared()
    }
}

/// Why an unnamed one is not counted, after its name.
pub(crate) const UNNAMED: &str = "came by this machine's own token or by break-glass access, which may be anyone's, so it \
     does not count where several approvers are required: use a token of your own, or list `local` under `tokens` of its owner in `people`";

/// Whether this is the machine's own token or break-glass access: some user, and it is not known which.
pub(crate) fn is_unnamed(conn: &dyn Db, name: &str) -> Result<bool, StoreError> {
    Ok(CredentialHolder::of(conn, name)?.name == LOCAL && !planted("local-is-a-person"))
}

pub(crate) fn same(conn: &dyn Db, one: &str, other: &str) -> Result<bool, StoreError> {
    if identity(one) == identity(other) {
        return Ok(true);
    }
    if planted("maker-is-somebody-else") {
        return Ok(false);
    }
    Ok(CredentialHolder::of(conn, one)?.may_be(&CredentialHolder::of(conn, other)?))
}

/// The first of the names that may be the same user as this one.
pub(crate) fn again<'a>(conn: &dyn Db, names: &'a [String], by: &str) -> Result<Option<&'a String>, StoreError> {
    for name in names {
        if same(conn, name, by)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
