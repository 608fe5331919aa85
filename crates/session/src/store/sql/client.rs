//! One connection to one of three databases: connects, asks, and puts what comes into the words of [`Value`].

use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Column, ConnectOptions, Row as _, TypeInfo, ValueRef};

use super::value::Value;
use crate::store::settings::SqlSettings;
use crate::store::{Database, StoreError};

/// A row, by the names that a query may give its columns.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) id: Value,
    pub(super) data: Value,
    pub(super) user: Value,
    pub(super) address: Value,
    pub(super) expires: Value,
    pub(super) modified: Value,
}

impl Row {
    fn set(&mut self, column: &str, value: impl FnOnce() -> Result<Value, sqlx::Error>) -> Result<(), sqlx::Error> {
        let field = match column {
            "id" => &mut self.id,
            "data" => &mut self.data,
            "user" => &mut self.user,
            "address" => &mut self.address,
            "expires" => &mut self.expires,
            "modified" => &mut self.modified,
            _ => return Ok(()),
        };
        *field = value()?;
        Ok(())
    }
}

/// How to connect.
#[derive(Debug)]
pub(super) enum Options {
    #[cfg(feature = "mysql")]
    MySql(Box<sqlx::mysql::MySqlConnectOptions>),
    #[cfg(feature = "postgres")]
    Postgres(Box<sqlx::postgres::PgConnectOptions>),
    #[cfg(feature = "sqlite")]
    Sqlite(Box<sqlx::sqlite::SqliteConnectOptions>),
}

impl Options {
    pub(super) fn of(settings: &SqlSettings, deadline: Duration) -> Result<Self, StoreError> {
        // The URL was parsed when the setting was; a build without the database would have refused it there.
        let wrong = |_: sqlx::Error| StoreError::Settings(format!("identity.session.store: {settings} is no URL"));
        match settings.database {
            #[cfg(feature = "mysql")]
            Database::MySql => {
                let options: sqlx::mysql::MySqlConnectOptions = settings.url.parse().map_err(wrong)?;
                // Dates without a zone are in the server's own, unless the operator says otherwise.
                let options = if settings.names_timezone { options } else { options.timezone(None) };
                Ok(Self::MySql(Box::new(options.disable_statement_logging())))
            }
            #[cfg(feature = "postgres")]
            Database::Postgres => {
                let options: sqlx::postgres::PgConnectOptions = settings.url.parse().map_err(wrong)?;
                Ok(Self::Postgres(Box::new(options.disable_statement_logging())))
            }
            #[cfg(feature = "sqlite")]
            Database::Sqlite => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&settings.url);
                let options = options.read_only(true).create_if_missing(false).busy_timeout(deadline);
                Ok(Self::Sqlite(Box::new(options.disable_statement_logging())))
            }
            #[cfg(not(all(feature = "mysql", feature = "postgres", feature = "sqlite")))]
            database => Err(StoreError::Settings(format!("this wootz was built without {database}"))),
        }
    }

    /// Connects, for reading only.
    pub(super) async fn connect(&self) -> Result<Client, sqlx::Error> {
        match self {
            #[cfg(feature = "mysql")]
            Self::MySql(options) => {
                let mut connection = options.connect().await?;
                sqlx::query("SET SESSION TRANSACTION READ ONLY").execute(&mut connection).await?;
                Ok(Client::MySql(Box::new(connection)))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(options) => {
                let mut connection = options.connect().await?;
                let read_only = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY";
                sqlx::query(read_only).execute(&mut connection).await?;
                Ok(Client::Postgres(Box::new(connection)))
            }
            #[cfg(feature = "sqlite")]
            Self::Sqlite(options) => Ok(Client::Sqlite(Box::new(options.connect().await?))),
        }
    }
}

/// A connection. Dropped, it is closed at once, whatever it is in the middle of.
#[derive(Debug)]
pub(super) enum Client {
    #[cfg(feature = "mysql")]
    MySql(Box<sqlx::mysql::MySqlConnection>),
    #[cfg(feature = "postgres")]
    Postgres(Box<sqlx::postgres::PgConnection>),
    #[cfg(feature = "sqlite")]
    Sqlite(Box<sqlx::sqlite::SqliteConnection>),
}

/// What is bound to a statement's placeholders.
pub(super) enum Bindings<'a> {
    /// One id, as often as the statement has placeholders for it.
    Same(&'a str, usize),
    /// Each by itself.
    Each(Vec<&'a str>),
    /// All as one array, which only PostgreSQL has.
    #[cfg(feature = "postgres")]
    Array(Vec<&'a str>),
}

impl Bindings<'_> {
    #[cfg(any(feature = "mysql", feature = "sqlite"))]
    fn each(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Same(id, count) => Box::new(std::iter::repeat_n(*id, *count)),
            Self::Each(ids) => Box::new(ids.iter().copied()),
            #[cfg(feature = "postgres")]
            Self::Array(_) => unreachable!("only PostgreSQL is given arrays"),
        }
    }
}

impl Client {
    /// The first row for one id, all rows for many.
    pub(super) async fn rows(&mut self, sql: &Arc<str>, bindings: &Bindings<'_>) -> Result<Vec<Row>, sqlx::Error> {
        let sql = AssertSqlSafe(Arc::clone(sql));
        let only_one = matches!(bindings, Bindings::Same(..));
        match self {
            #[cfg(feature = "mysql")]
            Self::MySql(connection) => {
                let mut query = sqlx::query::<sqlx::MySql>(sql);
                for id in bindings.each() {
                    query = query.bind(id.to_owned());
                }
                if only_one {
                    return query.fetch_optional(&mut **connection).await?.iter().map(mysql).collect();
                }
                query.fetch_all(&mut **connection).await?.iter().map(mysql).collect()
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => {
                let query = sqlx::query::<sqlx::Postgres>(sql);
                let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<String>>();
                let query = match bindings {
                    Bindings::Same(id, _) => query.bind((*id).to_owned()),
                    Bindings::Each(ids) | Bindings::Array(ids) => query.bind(owned(ids)),
                };
                if only_one {
                    return query.fetch_optional(&mut **connection).await?.iter().map(postgres).collect();
                }
                query.fetch_all(&mut **connection).await?.iter().map(postgres).collect()
            }
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => {
                let mut query = sqlx::query::<sqlx::Sqlite>(sql);
                for id in bindings.each() {
                    query = query.bind(id.to_owned());
                }
                if only_one {
                    return query.fetch_optional(&mut **connection).await?.iter().map(sqlite).collect();
                }
                query.fetch_all(&mut **connection).await?.iter().map(sqlite).collect()
            }
        }
    }
}

#[cfg(feature = "mysql")]
fn mysql(columns: &sqlx::mysql::MySqlRow) -> Result<Row, sqlx::Error> {
    let mut row = Row::default();
    for column in columns.columns() {
        let at = column.ordinal();
        row.set(column.name(), || {
            let raw = columns.try_get_raw(at)?;
            let (is_null, info) = (raw.is_null(), raw.type_info().name().to_owned());
            let bytes = || columns.try_get_unchecked::<Vec<u8>, _>(at);
            Ok(match info.as_str() {
                _ if is_null => Value::Null,
                "BOOLEAN" | "TINYINT" | "SMALLINT" | "INT" | "MEDIUMINT" | "BIGINT" => {
                    Value::Integer(columns.try_get_unchecked::<i64, _>(at)?.into())
                }
                name if name.ends_with(" UNSIGNED") => Value::Integer(columns.try_get_unchecked::<u64, _>(at)?.into()),
                "FLOAT" => Value::Float(columns.try_get_unchecked::<f32, _>(at)?.into()),
                "DOUBLE" => Value::Float(columns.try_get_unchecked(at)?),
                "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => Value::Binary(bytes()?),
                "CHAR" | "VARCHAR" | "TINYTEXT" | "TEXT" | "MEDIUMTEXT" | "LONGTEXT" | "DECIMAL" | "ENUM" | "JSON" => {
                    Value::Text(bytes()?)
                }
                _ => Value::Other(info),
            })
        })?;
    }
    Ok(row)
}

#[cfg(feature = "postgres")]
fn postgres(columns: &sqlx::postgres::PgRow) -> Result<Row, sqlx::Error> {
    let mut row = Row::default();
    for column in columns.columns() {
        let at = column.ordinal();
        row.set(column.name(), || {
            let raw = columns.try_get_raw(at)?;
            if raw.is_null() {
                return Ok(Value::Null);
            }
            let info = raw.type_info().name().to_owned();
            let bytes = raw.as_bytes().map_err(sqlx::Error::Decode)?;
            Ok(match info.as_str() {
                "INT2" => Value::Integer(columns.try_get::<i16, _>(at)?.into()),
                "INT4" => Value::Integer(columns.try_get::<i32, _>(at)?.into()),
                "INT8" => Value::Integer(columns.try_get::<i64, _>(at)?.into()),
                "FLOAT4" => Value::Float(columns.try_get::<f32, _>(at)?.into()),
                "FLOAT8" => Value::Float(columns.try_get(at)?),
                "NUMERIC" => postgres_numeric(bytes).map_or(Value::Other(info), Value::Integer),
                "TIMESTAMPTZ" => postgres_time(bytes).map_or(Value::Other(info), Value::Integer),
                "UUID" => postgres_uuid(bytes).map_or(Value::Other(info), Value::Text),
                "INET" | "CIDR" => postgres_address(bytes).map_or(Value::Other(info), Value::Text),
                "BYTEA" => Value::Binary(bytes.to_vec()),
                // Its binary form is a version, then the text.
                "JSONB" => Value::Text(bytes.get(1..).unwrap_or_default().to_vec()),
                "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "JSON" | "citext" | "CITEXT" => Value::Text(bytes.to_vec()),
                _ => Value::Other(info),
            })
        })?;
    }
    Ok(row)
}

/// The whole part: a header of four 16-bit numbers (digits, weight of the first, sign, scale), then digits to the base 10,000.
#[cfg(feature = "postgres")]
fn postgres_numeric(bytes: &[u8]) -> Option<i128> {
    const NEGATIVE: i16 = 0x4000;
    let numbers: Vec<i16> = bytes.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
    let [_count, weight, sign, _scale, digits @ ..] = numbers.as_slice() else { return None };
    if !matches!(*sign, 0 | NEGATIVE) || *weight > 8 {
        return None;
    }
    let whole = (0..=*weight).map(|at| digits.get(usize::try_from(at).unwrap_or(usize::MAX)).copied().unwrap_or(0));
    let value = whole.fold(0_i128, |value, digit| value * 10_000 + i128::from(digit));
    Some(if *sign == NEGATIVE { -value } else { value })
}

/// Microseconds since 2000, in UTC.
#[cfg(feature = "postgres")]
fn postgres_time(bytes: &[u8]) -> Option<i128> {
    const BEGINNING: i128 = 946_684_800;
    let micros = i64::from_be_bytes(bytes.try_into().ok()?);
    Some(i128::from(micros.div_euclid(1_000_000)) + BEGINNING)
}

#[cfg(feature = "postgres")]
fn postgres_uuid(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if digits.len() != 32 {
        return None;
    }
    for at in [20, 16, 12, 8] {
        digits.insert(at, '-');
    }
    Some(digits.into_bytes())
}

/// Family, bits of the mask, whether it is a network, length, address.
#[cfg(feature = "postgres")]
fn postgres_address(bytes: &[u8]) -> Option<Vec<u8>> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let [_family, _bits, _is_network, _length, address @ ..] = bytes else { return None };
    let four = <[u8; 4]>::try_from(address).map(|octets| Ipv4Addr::from(octets).to_string());
    let text = four.or_else(|_| <[u8; 16]>::try_from(address).map(|octets| Ipv6Addr::from(octets).to_string()));
    text.ok().map(String::into_bytes)
}

#[cfg(feature = "sqlite")]
fn sqlite(columns: &sqlx::sqlite::SqliteRow) -> Result<Row, sqlx::Error> {
    let mut row = Row::default();
    for column in columns.columns() {
        let at = column.ordinal();
        row.set(column.name(), || {
            let raw = columns.try_get_raw(at)?;
            let (is_null, info) = (raw.is_null(), raw.type_info().name().to_owned());
            // What counts is the value's type, not the column's.
            Ok(match info.as_str() {
                _ if is_null => Value::Null,
                "INTEGER" | "INT4" | "BIGINT" | "BOOLEAN" => {
                    Value::Integer(columns.try_get_unchecked::<i64, _>(at)?.into())
                }
                "REAL" => Value::Float(columns.try_get_unchecked(at)?),
                "BLOB" => Value::Binary(columns.try_get_unchecked(at)?),
                _ => Value::Text(columns.try_get_unchecked(at)?),
            })
        })?;
    }
    Ok(row)
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_of_postgres_are_read() {
        let numeric = |numbers: &[i16]| -> Vec<u8> { numbers.iter().flat_map(|number| number.to_be_bytes()).collect() };
        assert_eq!(postgres_numeric(&numeric(&[3, 2, 0, 0, 17, 6403, 9])), Some(1_764_030_009));
        assert_eq!(postgres_numeric(&numeric(&[1, 1, 0, 0, 5])), Some(50_000));
        assert_eq!(postgres_numeric(&numeric(&[2, 0, 0x4000, 2, 7, 5000])), Some(-7));
        assert_eq!(postgres_numeric(&numeric(&[1, -1, 0, 2, 5000])), Some(0));
        assert_eq!(postgres_numeric(&numeric(&[0, 0, i16::MIN, 0])), None);
        assert_eq!(postgres_time(&0_i64.to_be_bytes()), Some(946_684_800));
        assert_eq!(postgres_time(&(-1_i64).to_be_bytes()), Some(946_684_799));
        assert_eq!(postgres_time(&[]), None);
    }
}
