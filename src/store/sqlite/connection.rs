//! SQLite's connection as the `Db` that the operations are written over.
//!
//! Invariant: every statement is prepared once for each connection.

use crate::store::StoreError;
use crate::store::db::{Datum, Db, DbRow, Param, RowColumns, SqlDialect};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, Error, ToSql};

const SQLITE: SqlDialect = SqlDialect {
    greatest: "max",
    least: "min",
    joined: "group_concat",
    json_list: "json_group_array",
    position: "instr",
    row_id: "rowid",
    state_is: "CASE WHEN json_valid(state) THEN json_extract(state, '$.is') END",
    state_code: "CASE WHEN json_valid(state) THEN json_extract(state, '$.reason.code') END",
    subject_node: "CASE WHEN json_valid(subject) THEN json_extract(subject, '$.node') END",
    subject_cluster: "CASE WHEN json_valid(subject) THEN json_extract(subject, '$.cluster') END",
    event_text: "CAST(substr(n.body, e.start + 1, e.length) AS TEXT)",
};

impl Db for Connection {
    fn execute(&self, sql: &str, values: &[&dyn Param]) -> Result<usize, StoreError> {
        Ok(prepared(self, sql, values)?.raw_execute()?)
    }

    fn query(
        &self,
        sql: &str,
        values: &[&dyn Param],
        each: &mut dyn FnMut(&DbRow<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut statement = prepared(self, sql, values)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            if !each(row)? {
                break;
            }
        }
        Ok(())
    }

    fn dialect(&self) -> &'static SqlDialect {
        &SQLITE
    }
}

fn prepared<'c>(conn: &'c Connection, sql: &str, values: &[&dyn Param]) -> Result<CachedStatement<'c>, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    if statement.parameter_count() != values.len() {
        return Err(Error::InvalidParameterCount(values.len(), statement.parameter_count()).into());
    }
    for (at, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(at + 1, BoundValue(value.datum()))?;
    }
    Ok(statement)
}

struct BoundValue<'a>(Datum<'a>);

impl ToSql for BoundValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Datum::Null => ValueRef::Null,
            Datum::Integer(number) => ValueRef::Integer(number),
            Datum::Text(text) => ValueRef::Text(text.as_bytes()),
            Datum::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl RowColumns for rusqlite::Row<'_> {
    fn datum(&self, at: usize) -> Result<Datum<'_>, StoreError> {
        let damaged = |why: String| StoreError::Damaged(format!("column `{}`: {why}", self.name(at)));
        match self.get_ref(at)? {
            ValueRef::Null => Ok(Datum::Null),
            ValueRef::Integer(number) => Ok(Datum::Integer(number)),
            ValueRef::Real(number) => Err(damaged(format!("holds the fraction {number}"))),
            ValueRef::Text(text) => {
                std::str::from_utf8(text).map(Datum::Text).map_err(|error| damaged(error.to_string()))
            }
            ValueRef::Blob(bytes) => Ok(Datum::Blob(bytes)),
        }
    }

    fn name(&self, at: usize) -> String {
        self.as_ref().column_name(at).unwrap_or("?").to_owned()
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> StoreError {
        match error {
            error if is_of_row(&error) => StoreError::Damaged(error.to_string()),
            other => StoreError::Database(other.to_string()),
        }
    }
}

/// Whether an error is about the values of one row, not about the file.
fn is_of_row(error: &Error) -> bool {
    matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::db::{all, exec, json, one, params};

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (number INTEGER, state TEXT, bytes BLOB) STRICT").unwrap();
        conn
    }

    #[test]
    fn values_come_back_as_they_went_in() {
        let conn = database();
        let rows = [(Some(i64::MIN), Some("größer"), Some(vec![0_u8, 255])), (None, None, None)];
        for (number, text, bytes) in &rows {
            let insert = "INSERT INTO t (number, state, bytes) VALUES (?1, ?2, ?3)";
            assert_eq!(exec(&conn, insert, params![number, text, bytes]).unwrap(), 1);
        }
        let read = all(&conn, "SELECT number, state, bytes FROM t ORDER BY number IS NULL", [], |row| {
            Ok((row.get::<Option<i64>>(0)?, row.get::<Option<String>>(1)?, row.get::<Option<Vec<u8>>>(2)?))
        });
        let wanted = rows.map(|(number, text, bytes)| (number, text.map(str::to_owned), bytes));
        assert_eq!(read.unwrap(), wanted);
    }

    #[test]
    fn a_value_of_another_kind_is_damaged_and_the_error_names_its_column() {
        let conn = database();
        let why = |read: Result<Option<()>, StoreError>| match read {
            Err(StoreError::Damaged(why)) => why,
            other => panic!("{other:?}"),
        };
        let number = one(&conn, "SELECT 'x' AS state", [], |row| row.get::<i64>(0).map(drop));
        assert_eq!(why(number), "column `state`: holds Text");
        let range = one(&conn, "SELECT -1 AS attempts", [], |row| row.get::<u32>(0).map(drop));
        assert_eq!(why(range), "column `attempts`: -1 is out of range");
        let text = one(&conn, "SELECT CAST(x'ff' AS TEXT) AS state", [], |row| row.get::<String>(0).map(drop));
        assert!(why(text).starts_with("column `state`: invalid utf-8"));
        let noun = one(&conn, "SELECT '[' AS state", [], |row| json::<Vec<u8>>(row, 0).map(drop));
        assert!(why(noun).starts_with("column `state`: EOF"));
    }

    #[test]
    fn a_statement_with_another_number_of_values_than_places_is_refused() {
        let conn = database();
        let short = exec(&conn, "INSERT INTO t (number, state) VALUES (?1, ?2)", [1_i64]);
        assert!(matches!(&short, Err(StoreError::Database(why)) if why.contains("parameter")), "{short:?}");
        assert_eq!(one(&conn, "SELECT count(*) FROM t", [], |row| row.get::<i64>(0)).unwrap(), Some(0));
    }

    #[test]
    fn a_query_ends_with_the_row_that_was_wanted() {
        let conn = database();
        let endless = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";
        assert_eq!(one(&conn, endless, [], |row| row.get::<i64>(0)).unwrap(), Some(1));
    }
}
