//! The small interface to a database that the operations of the store are written over, and how values travel between rows and
//! nouns.
//!
//! A statement is SQL with `?1`, `?2`, … for its values. It uses common SQL only; the few words in which databases differ come
//! from [`Dialect`].
//!
//! Invariant: an operation knows no other way to the database; a value that cannot be read back is `Damaged`, and the error
//! names its column.

use super::StoreError;
use crate::model::Time;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A connection, within a transaction where it writes. A database implements it once.
pub(crate) trait Db {
    /// Runs a statement; returns how many rows it changed.
    ///
    /// # Errors
    /// `Database` where the database refuses it, or the number of values is another than the statement has places.
    fn execute(&self, sql: &str, values: &[&dyn Param]) -> Result<usize, StoreError>;

    /// Runs a query, or a statement with `RETURNING`, and hands its rows to `each`, one by one, until that returns false.
    ///
    /// # Errors
    /// As `execute`, and the errors of `each`.
    fn query(
        &self,
        sql: &str,
        values: &[&dyn Param],
        each: &mut dyn FnMut(&DbRow<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError>;

    /// The words in which databases differ.
    fn dialect(&self) -> &'static SqlDialect;
}

/// Parts of statements for which databases have no common word.
#[derive(Debug)]
pub(crate) struct SqlDialect {
    /// The function for the greatest of several values of one row; it returns NULL if one of them is.
    pub greatest: &'static str,
    /// The same for the least.
    pub least: &'static str,
    /// The aggregate that joins texts, with the text between them as its second value.
    pub joined: &'static str,
    /// The aggregate that makes a JSON list of texts, `[]` of none.
    pub json_list: &'static str,
    /// The function for where a text is found in another one, from 1; 0 where it is not.
    pub position: &'static str,
    /// The name of a row in a table without a number of its own.
    pub row_id: &'static str,
    /// The word of a run's state and the code of its reason, from its column `state`; NULL where the text is no JSON, so that one
    /// unreadable row fails no statement over many.
    pub state_is: &'static str,
    pub state_code: &'static str,
    /// The same of the node and the cluster of a subject, from a column `subject`.
    pub subject_node: &'static str,
    pub subject_cluster: &'static str,
    /// The text of an event, from the body `n.body` of the entry that holds it and the place `e.start`, `e.length` in it.
    pub event_text: &'static str,
}

/// One value, on its way into a statement or out of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datum<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl Datum<'_> {
    fn kind(self) -> &'static str {
        match self {
            Datum::Null => "Null",
            Datum::Integer(_) => "Integer",
            Datum::Text(_) => "Text",
            Datum::Blob(_) => "Blob",
        }
    }
}

/// A row while a query stands on it.
pub(crate) trait RowColumns {
    /// The value of a column, from 0.
    ///
    /// # Errors
    /// `Damaged` where the text is not UTF-8 or the value is of a kind that no column has.
    fn datum(&self, at: usize) -> Result<Datum<'_>, StoreError>;

    /// The column's name, for errors.
    fn name(&self, at: usize) -> String;
}

pub(crate) type DbRow<'r> = dyn RowColumns + 'r;

impl dyn RowColumns + '_ {
    /// The value of a column as a type of the program.
    ///
    /// # Errors
    /// `Damaged` where it is of another kind or out of range.
    pub fn get<T: FromDatum>(&self, at: usize) -> Result<T, StoreError> {
        T::from_datum(self.datum(at)?).map_err(|why| self.damaged(at, why))
    }

    fn text(&self, at: usize) -> Result<&str, StoreError> {
        match self.datum(at)? {
            Datum::Text(text) => Ok(text),
            other => Err(self.damaged(at, format!("holds {}", other.kind()))),
        }
    }

    /// The error for a value that is not as it should be.
    pub fn damaged(&self, at: usize, why: impl std::fmt::Display) -> StoreError {
        StoreError::Damaged(format!("column `{}`: {why}", self.name(at)))
    }
}

/// A type that a statement takes as a value.
pub(crate) trait Param {
    fn datum(&self) -> Datum<'_>;
}

/// A type that a column can be read as.
pub(crate) trait FromDatum: Sized {
    /// # Errors
    /// In words, what the column holds instead.
    fn from_datum(datum: Datum<'_>) -> Result<Self, String>;
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Param for $number {
            fn datum(&self) -> Datum<'_> {
                Datum::Integer(i64::from(*self))
            }
        }

        impl FromDatum for $number {
            fn from_datum(datum: Datum<'_>) -> Result<Self, String> {
                match datum {
                    Datum::Integer(number) => number.try_into().map_err(|_| format!("{number} is out of range")),
                    other => Err(format!("holds {}", other.kind())),
                }
            }
        }
    )*};
}

whole_numbers!(i64, i32, u32, u16, u8);

impl Param for bool {
    fn datum(&self) -> Datum<'_> {
        Datum::Integer(i64::from(*self))
    }
}

impl FromDatum for bool {
    fn from_datum(datum: Datum<'_>) -> Result<Self, String> {
        i64::from_datum(datum).map(|number| number != 0)
    }
}

impl Param for str {
    fn datum(&self) -> Datum<'_> {
        Datum::Text(self)
    }
}

impl Param for String {
    fn datum(&self) -> Datum<'_> {
        Datum::Text(self)
    }
}

impl FromDatum for String {
    fn from_datum(datum: Datum<'_>) -> Result<Self, String> {
        match datum {
            Datum::Text(text) => Ok(text.to_owned()),
            other => Err(format!("holds {}", other.kind())),
        }
    }
}

impl Param for [u8] {
    fn datum(&self) -> Datum<'_> {
        Datum::Blob(self)
    }
}

impl Param for Vec<u8> {
    fn datum(&self) -> Datum<'_> {
        Datum::Blob(self)
    }
}

impl<const N: usize> Param for [u8; N] {
    fn datum(&self) -> Datum<'_> {
        Datum::Blob(self)
    }
}

impl FromDatum for Vec<u8> {
    fn from_datum(datum: Datum<'_>) -> Result<Self, String> {
        match datum {
            Datum::Blob(bytes) => Ok(bytes.to_owned()),
            other => Err(format!("holds {}", other.kind())),
        }
    }
}

impl<const N: usize> FromDatum for [u8; N] {
    fn from_datum(datum: Datum<'_>) -> Result<Self, String> {
        match datum {
            Datum::Blob(bytes) => bytes.try_into().map_err(|_| format!("holds {} bytes, not {N}", bytes.len())),
            other => Err(format!("holds {}", other.kind())),
        }
    }
}

impl<T: Param> Param for Option<T> {
    fn datum(&self) -> Datum<'_> {
        self.as_ref().map_or(Datum::Null, Param::datum)
    }
}

impl<T: FromDatum> FromDatum for Option<T> {
    fn from_datum(datum: Datum<'_>) -> Result<Self, String> {
        match datum {
            Datum::Null => Ok(None),
            other => T::from_datum(other).map(Some),
        }
    }
}

impl<T: Param + ?Sized> Param for &T {
    fn datum(&self) -> Datum<'_> {
        (**self).datum()
    }
}

impl<T: Param + ?Sized> Param for Box<T> {
    fn datum(&self) -> Datum<'_> {
        (**self).datum()
    }
}

/// The values of a statement, in the order of their places: `params![…]`, an array of one type, or a list that was put together.
pub(crate) trait Params {
    fn bind<R>(self, run: impl FnOnce(&[&dyn Param]) -> R) -> R;
}

impl Params for &[&dyn Param] {
    fn bind<R>(self, run: impl FnOnce(&[&dyn Param]) -> R) -> R {
        run(self)
    }
}

impl Params for [&dyn Param; 0] {
    fn bind<R>(self, run: impl FnOnce(&[&dyn Param]) -> R) -> R {
        run(&self)
    }
}

impl Params for Vec<Box<dyn Param>> {
    fn bind<R>(self, run: impl FnOnce(&[&dyn Param]) -> R) -> R {
        let values: Vec<&dyn Param> = self.iter().map(|value| &**value).collect();
        run(&values)
    }
}

macro_rules! arrays {
    ($($size:literal),*) => {$(
        impl<T: Param> Params for [T; $size] {
            fn bind<R>(self, run: impl FnOnce(&[&dyn Param]) -> R) -> R {
                run(&self.each_ref().map(|value| value as &dyn Param))
            }
        }
    )*};
}

arrays!(1, 2, 3);

/// The values of a statement, each of its own type.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$(&$value as &dyn $crate::store::db::Param),*] as &[&dyn $crate::store::db::Param]
    };
}
pub(crate) use params;

/// Runs a statement; returns how many rows it changed.
pub(crate) fn exec<D: Db + ?Sized>(db: &D, sql: &str, params: impl Params) -> Result<usize, StoreError> {
    params.bind(|values| db.execute(sql, values))
}

/// The first row of a query; none where there is none.
pub(crate) fn one<T, D: Db + ?Sized>(
    db: &D,
    sql: &str,
    params: impl Params,
    map: impl FnOnce(&DbRow<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let (mut map, mut found) = (Some(map), None);
    let mut each = |row: &DbRow<'_>| {
        found = map.take().map(|map| map(row)).transpose()?;
        Ok::<bool, StoreError>(false)
    };
    params.bind(|values| db.query(sql, values, &mut each))?;
    Ok(found)
}

/// Every row of a query.
pub(crate) fn all<T, D: Db + ?Sized>(
    db: &D,
    sql: &str,
    params: impl Params,
    mut map: impl FnMut(&DbRow<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::new();
    let mut each = |row: &DbRow<'_>| {
        found.push(map(row)?);
        Ok::<bool, StoreError>(true)
    };
    params.bind(|values| db.query(sql, values, &mut each))?;
    Ok(found)
}

/// A number that is always there: a count, a maximum with `coalesce`.
///
/// # Errors
/// `Database` where there is no row.
pub(crate) fn number<D: Db + ?Sized>(db: &D, sql: &str, params: impl Params) -> Result<i64, StoreError> {
    let missing = || StoreError::Database(format!("no row for `{sql}`"));
    one(db, sql, params, |row| row.get(0))?.ok_or_else(missing)
}

/// The number of the next row of a table whose newest row is never removed.
pub(crate) fn next_id<D: Db + ?Sized>(db: &D, table: &str) -> Result<i64, StoreError> {
    number(db, &format!("SELECT coalesce(max(id), 0) + 1 FROM {table}"), [])
}

pub(crate) fn micros(time: Time) -> i64 {
    time.as_microsecond()
}

pub(crate) fn time(row: &DbRow<'_>, column: usize) -> Result<Time, StoreError> {
    at(row, row.get(column)?, column)
}

pub(crate) fn time_opt(row: &DbRow<'_>, column: usize) -> Result<Option<Time>, StoreError> {
    row.get::<Option<i64>>(column)?.map(|micros| at(row, micros, column)).transpose()
}

fn at(row: &DbRow<'_>, micros: i64, column: usize) -> Result<Time, StoreError> {
    Time::from_microsecond(micros).map_err(|error| row.damaged(column, error))
}

/// A noun as JSON text.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Refused(format!("not a JSON value: {error}")))
}

pub(crate) fn json<T: DeserializeOwned>(row: &DbRow<'_>, column: usize) -> Result<T, StoreError> {
    serde_json::from_str(row.text(column)?).map_err(|error| row.damaged(column, error))
}

pub(crate) fn json_opt<T: DeserializeOwned>(row: &DbRow<'_>, column: usize) -> Result<Option<T>, StoreError> {
    match row.datum(column)? {
        Datum::Null => Ok(None),
        _ => json(row, column).map(Some),
    }
}

/// A word of a closed list (a unit variant), bare, without JSON's quotes.
pub(crate) fn to_word<T: Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(to_json(value)?.trim_matches('"').to_owned())
}

pub(crate) fn word<T: DeserializeOwned>(row: &DbRow<'_>, column: usize) -> Result<T, StoreError> {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error as Plain, StrDeserializer};
    let text: StrDeserializer<'_, Plain> = row.text(column)?.into_deserializer();
    T::deserialize(text).map_err(|error| row.damaged(column, error))
}
