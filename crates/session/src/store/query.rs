//! How a database is asked for a session: the tables that frameworks make, or a query of the site's own.

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
use super::Database;

/// What a query must have where the id belongs.
const PLACEHOLDER: &str = ":id";

/// How a database is asked, as written in `identity.session.query`.
///
/// A query returns by name: `data`; and if it likes `user`, `address`, `expires` (Unix seconds at which the session ends) or
/// `modified` (Unix seconds at which it was last used), and `id`, which is compared then, because databases may find an id
/// that differs in case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Query {
    /// `carbonphp`: `sessions(user_id, user_ip, session_id, session_expires, session_data)`.
    #[default]
    CarbonPhp,
    /// `laravel`: `sessions(id, user_id, ip_address, payload, last_activity)`; the payload is base64.
    Laravel,
    /// `symfony`: `sessions(sess_id, sess_data, sess_lifetime, sess_time)`, as its `PdoSessionHandler` makes it.
    Symfony,
    /// SQL with `:id` where the id belongs.
    Custom(String),
}

impl Query {
    /// The query in a setting: the name of a preset, or SQL.
    ///
    /// # Errors
    /// It is neither; the text names the mistake and the remedy.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" | "carbonphp" => Ok(Self::CarbonPhp),
            "laravel" => Ok(Self::Laravel),
            "symfony" => Ok(Self::Symfony),
            word if !word.contains(char::is_whitespace) => Err(format!(
                "{word:?} is no preset; write carbonphp, laravel, symfony, or a query such as \
                 SELECT payload AS data FROM sessions WHERE id = :id"
            )),
            sql if translate(sql, |_| "?".to_owned()).1 == 0 => Err(format!(
                "the query has no {PLACEHOLDER}, so it would find the same session for everybody; write WHERE … = {PLACEHOLDER}"
            )),
            sql => Ok(Self::Custom(sql.trim_end_matches(';').to_owned())),
        }
    }
}

/// The query with each `:id` outside of strings, quoted names and comments replaced by what `placeholder` gives for its
/// number, and how many there were.
fn translate(sql: &str, placeholder: impl Fn(usize) -> String) -> (String, usize) {
    let (mut translated, mut count, mut rest) = (String::with_capacity(sql.len()), 0, sql);
    while let Some(next) = rest.chars().next() {
        let before = translated.chars().next_back();
        let length = match next {
            '\'' | '"' | '`' => rest[1..].find(next).map_or(rest.len(), |end| end + 2),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            ':' if before != Some(':') && is_placeholder(rest) => {
                count += 1;
                translated += &placeholder(count);
                rest = &rest[PLACEHOLDER.len()..];
                continue;
            }
            other => other.len_utf8(),
        };
        translated += &rest[..length];
        rest = &rest[length..];
    }
    (translated, count)
}

fn is_placeholder(rest: &str) -> bool {
    let after = rest.strip_prefix(PLACEHOLDER);
    after.is_some_and(|after| !after.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
}

/// A query as one database takes it.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) sql: String,
    /// How often the id, or the ids, must be bound.
    pub(super) bindings: usize,
}

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
impl Query {
    /// The query for one id.
    pub(super) fn for_one(&self, database: Database) -> Statement {
        let placeholder = |_| match database {
            Database::MySql | Database::Sqlite => "?".to_owned(),
            Database::Postgres => "$1".to_owned(),
        };
        match self {
            Self::Custom(sql) => {
                let (sql, count) = translate(sql, placeholder);
                Statement { sql, bindings: if database == Database::Postgres { 1 } else { count } }
            }
            Self::CarbonPhp | Self::Laravel | Self::Symfony => {
                let (columns, key) = self.preset(database);
                let sql = format!("SELECT {columns} FROM sessions WHERE {key} = {}", placeholder(1));
                Statement { sql, bindings: 1 }
            }
        }
    }

    /// The query for so many ids, if this one can be asked for many. Only MySQL and SQLite bind each id by itself.
    pub(super) fn for_many(&self, database: Database, count: usize) -> Option<Statement> {
        if matches!(self, Self::Custom(_)) {
            return None;
        }
        let (columns, key) = self.preset(database);
        Some(match database {
            Database::Postgres => {
                Statement { sql: format!("SELECT {columns} FROM sessions WHERE {key} = ANY($1)"), bindings: 1 }
            }
            Database::MySql | Database::Sqlite => {
                let marks = vec!["?"; count].join(", ");
                Statement { sql: format!("SELECT {columns} FROM sessions WHERE {key} IN ({marks})"), bindings: count }
            }
        })
    }

    /// The columns and the key of a preset's table.
    fn preset(&self, database: Database) -> (String, &'static str) {
        match self {
            // A date without a zone is in the database's own, which is what its functions take it for.
            Self::CarbonPhp => {
                let expires = match database {
                    Database::MySql => "UNIX_TIMESTAMP(session_expires)",
                    Database::Postgres => "EXTRACT(EPOCH FROM session_expires::timestamptz)::bigint",
                    Database::Sqlite => {
                        "CASE WHEN typeof(session_expires) IN ('integer', 'real') THEN session_expires \
                         ELSE CAST(strftime('%s', session_expires, 'utc') AS INTEGER) END"
                    }
                };
                let columns = "session_id AS id, session_data AS data, user_id AS user, user_ip AS address";
                (format!("{columns}, {expires} AS expires"), "session_id")
            }
            Self::Laravel => {
                let columns = "id, payload AS data, user_id AS user, ip_address AS address, last_activity AS modified";
                (columns.to_owned(), "id")
            }
            // Since Symfony 4.4 sess_lifetime is the moment of the end; a value below ten years is a length, as before.
            Self::Symfony => {
                let expires =
                    "CASE WHEN sess_lifetime > 315576000 THEN sess_lifetime ELSE sess_time + sess_lifetime END";
                (format!("sess_id AS id, sess_data AS data, {expires} AS expires"), "sess_id")
            }
            Self::Custom(_) => unreachable!("a custom query has no table that we know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_a_preset_or_sql_with_a_placeholder() {
        assert_eq!(Query::parse(""), Ok(Query::CarbonPhp));
        assert_eq!(Query::parse("laravel"), Ok(Query::Laravel));
        assert_eq!(Query::parse(" symfony "), Ok(Query::Symfony));
        let sql = "SELECT d AS data FROM s WHERE i = :id";
        assert_eq!(Query::parse(&format!("{sql};")), Ok(Query::Custom(sql.to_owned())));
        assert!(Query::parse("wordpress").is_err_and(|error| error.contains("symfony")));
        for sql in
            ["SELECT d FROM s", "SELECT ':id' FROM s", "SELECT d::id FROM s -- :id", "SELECT :idea /* :id */ FROM s"]
        {
            assert!(Query::parse(sql).is_err_and(|error| error.contains("no :id")), "{sql}");
        }
    }

    #[test]
    fn placeholders_are_the_databases_own() {
        let sql = "SELECT d::text AS data, ':id' AS \":id\" FROM s WHERE a = :id OR (b=:id) -- :id\n AND c = :id";
        let (translated, count) = translate(sql, |number| format!("${number}"));
        let expected = "SELECT d::text AS data, ':id' AS \":id\" FROM s WHERE a = $1 OR (b=$2) -- :id\n AND c = $3";
        assert_eq!((translated.as_str(), count), (expected, 3));
        assert_eq!(translate("'never closed :id", |_| "?".to_owned()).1, 0);
    }
}
