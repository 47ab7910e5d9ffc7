//! The few ways in which statements are run, and how values travel between rows and nouns.
//!
//! Invariant: every statement is prepared once for each connection; a value that cannot be read back is `Damaged`.

use crate::model::Time;
use crate::store::StoreError;
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Params, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The word of a run's state, and the code of its reason; none where the text is no JSON, so that one unreadable row fails no
/// statement over many.
pub(super) const STATE_IS: &str = "CASE WHEN json_valid(state) THEN json_extract(state, '$.is') END";
pub(super) const STATE_CODE: &str = "CASE WHEN json_valid(state) THEN json_extract(state, '$.reason.code') END";
/// The same of the node and the cluster of a subject.
pub(super) const SUBJECT_NODE: &str = "CASE WHEN json_valid(subject) THEN json_extract(subject, '$.node') END";
pub(super) const SUBJECT_CLUSTER: &str = "CASE WHEN json_valid(subject) THEN json_extract(subject, '$.cluster') END";

pub(super) fn exec<P: Params>(conn: &Connection, sql: &str, params: P) -> Result<usize, StoreError> {
    Ok(conn.prepare_cached(sql)?.execute(params)?)
}

pub(super) fn one<T, P: Params>(
    conn: &Connection,
    sql: &str,
    params: P,
    map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    Ok(conn.prepare_cached(sql)?.query_row(params, map).optional()?)
}

pub(super) fn all<T, P: Params>(
    conn: &Connection,
    sql: &str,
    params: P,
    map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    Ok(conn.prepare_cached(sql)?.query_map(params, map)?.collect::<Result<_, _>>()?)
}

/// A number that is always there: a count, a maximum with `coalesce`.
pub(super) fn number<P: Params>(conn: &Connection, sql: &str, params: P) -> Result<i64, StoreError> {
    Ok(conn.prepare_cached(sql)?.query_row(params, |row| row.get(0))?)
}

impl From<Error> for StoreError {
    fn from(error: Error) -> StoreError {
        match error {
            error if super::parked::is_of_row(&error) => StoreError::Damaged(error.to_string()),
            other => StoreError::Database(other.to_string()),
        }
    }
}

pub(super) fn micros(time: Time) -> i64 {
    time.as_microsecond()
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Time> {
    at(row.get(column)?, column)
}

pub(super) fn time_opt(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Time>> {
    row.get::<_, Option<i64>>(column)?.map(|micros| at(micros, column)).transpose()
}

fn at(micros: i64, column: usize) -> rusqlite::Result<Time> {
    Time::from_microsecond(micros)
        .map_err(|error| Error::FromSqlConversionFailure(column, Type::Integer, Box::new(error)))
}

/// A noun as JSON text.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Refused(format!("not a JSON value: {error}")))
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

pub(super) fn json_opt<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(None),
        Some(_) => json(row, column).map(Some),
    }
}

/// A word of a closed list (a unit variant), bare, without JSON's quotes.
pub(super) fn to_word<T: Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(to_json(value)?.trim_matches('"').to_owned())
}

pub(super) fn word<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error as Plain, StrDeserializer};
    let text: StrDeserializer<'_, Plain> = row.get_ref(column)?.as_str()?.into_deserializer();
    T::deserialize(text).map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}
