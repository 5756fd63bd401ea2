//! Databases of other systems, named where a PostgreSQL database is wanted: an application's DATABASE_URL may lead to the one
//! that it came from. What it is gets said, and which command would serve. Reads the first bytes of a file that has the
//! database's name; connects to nothing.
//!
//! Errors never repeat text of the input but a scheme that stands here: any other piece may be part of a password.

use std::io::Read;

use super::connection_string::without_quotes;
use crate::error::{Error, Result};

/// A system, as a person calls it, and the schemes by which URLs of applications name it.
struct Engine {
    name: &'static str,
    schemes: &'static [&'static str],
}

const fn engine(name: &'static str, schemes: &'static [&'static str]) -> Engine {
    Engine { name, schemes }
}

/// The schemes of SQLAlchemy, Django's URL packages, Rails, Laravel and Doctrine, Tortoise, sqlx, Prisma, Go's and JDBC's.
const ENGINES: [Engine; 13] = [
    engine(SQLITE, &["sqlite", "sqlite3", "pdo-sqlite", "pdo_sqlite", "spatialite", "file"]),
    engine("libSQL", &["libsql", "turso"]),
    engine(
        "MySQL",
        &["mysql", "mysql2", "mysqli", "mysqlx", "mysqlgis", "pdo-mysql", "pdo_mysql", "trilogy"],
    ),
    engine("MariaDB", &["mariadb"]),
    engine(
        "SQL Server",
        &["mssql", "sqlserver", "sqlsrv", "pdo-sqlsrv", "pdo_sqlsrv", "tds", "azuresql", "mssqlms"],
    ),
    engine("Oracle", &["oracle", "oracledb", "oci8", "oraclegis"]),
    engine("MongoDB", &["mongodb", "mongo"]),
    engine("Redis", &["redis", "rediss", "valkey"]),
    engine("DuckDB", &["duckdb", "motherduck"]),
    engine("ClickHouse", &["clickhouse", "clickhousedb", "chdb"]),
    engine("Snowflake", &["snowflake"]),
    engine("BigQuery", &["bigquery"]),
    engine("Db2", &["db2", "ibm_db_sa", "ibmdb"]),
];

const SQLITE: &str = "SQLite";

/// How every SQLite file begins.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Refuses what a person gave as the database, if it leads to one of another system.
///
/// # Errors
/// It does; with the command that would serve.
pub fn refuse(text: &str) -> Result<()> {
    let text = without_quotes(text.trim());
    refuse_url(text)?;
    if text.contains("://") { Ok(()) } else { refuse_file(text) }
}

/// Refuses a URL of another system, also one without slashes, such as `sqlite::memory:`.
pub(super) fn refuse_url(text: &str) -> Result<()> {
    match of_scheme(text) {
        None => Ok(()),
        Some(engine) => Err(error(&format!("the database URL leads to {}", engine.name), engine.name)),
    }
}

/// Refuses a database's name that is the path of a SQLite file. A plain word may be the name of both.
pub(super) fn refuse_file(database: &str) -> Result<()> {
    if database.contains(['/', '.']) && is_sqlite_file(database) {
        return Err(error("the database that was given is a file of SQLite", SQLITE));
    }
    Ok(())
}

/// The system whose URL this is.
fn of_scheme(text: &str) -> Option<&'static Engine> {
    let lower =
        text.get(..text.len().min(60)).map_or_else(|| text.to_ascii_lowercase(), str::to_ascii_lowercase);
    let (scheme, _) = lower.strip_prefix("jdbc:").unwrap_or(&lower).split_once(':')?;
    // `mysql+pymysql`, `mongodb+srv`.
    let base = scheme.split_once('+').map_or(scheme, |(base, _)| base);
    ENGINES.iter().find(|engine| engine.schemes.contains(&base))
}

/// Whether this is the path of a file that SQLite wrote.
fn is_sqlite_file(path: &str) -> bool {
    // A FIFO would be waited for.
    if !std::fs::metadata(path).is_ok_and(|found| found.is_file()) {
        return false;
    }
    let mut start = [0; SQLITE_MAGIC.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *SQLITE_MAGIC
}

fn error(what: &str, name: &str) -> Error {
    let error = Error::usage(format!("{what}, and these programs work on PostgreSQL"));
    error.with_hint(if name == SQLITE {
        "`safe-run import FILE -d postgresql://user@host/database` moves a SQLite file into a PostgreSQL database, and only reads \
         the file. Every other command needs the URL of the PostgreSQL database: check -d, DATABASE_URL and the settings file."
            .to_owned()
    } else {
        format!(
            "Give the URL of a PostgreSQL database: check -d, DATABASE_URL and the settings file. No command here reads {name}: a \
             tool for that has to move the data first (`safe-run import` does it for SQLite files)."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_other_systems_are_named_in_every_form() {
        for (text, name) in [
            ("sqlite:///app.db", "SQLite"),
            ("sqlite+aiosqlite:////srv/app.db", "SQLite"),
            ("SQLITE://app.db", "SQLite"),
            ("sqlite::memory:", "SQLite"),
            ("sqlite:db/dev.sqlite3", "SQLite"),
            ("file:./dev.db", "SQLite"),
            ("jdbc:sqlite:app.db", "SQLite"),
            ("sqlite+pysqlcipher://:secret@/app.db", "SQLite"),
            ("mysql://root:secret@db/shop", "MySQL"),
            ("mysql+pymysql://root:secret@db/shop", "MySQL"),
            ("jdbc:mysql://db/shop", "MySQL"),
            ("mariadb+mariadbconnector://db/shop", "MariaDB"),
            ("mssql+pyodbc://sa:secret@db/shop?driver=ODBC", "SQL Server"),
            ("jdbc:sqlserver://db;databaseName=shop", "SQL Server"),
            ("jdbc:oracle:thin:@db:1521:shop", "Oracle"),
            ("mongodb+srv://u:secret@db/shop", "MongoDB"),
        ] {
            let error = refuse_url(text).expect_err(text);
            assert!(error.message().contains(&format!(" {name}, ")), "{text}: {error}");
            assert!(!format!("{error:?}").contains("secret"), "{text}");
            assert_eq!(
                error.hint().is_some_and(|hint| hint.contains("safe-run import FILE")),
                name == "SQLite"
            );
        }
    }

    #[test]
    fn what_may_be_postgresql_is_left_alone() {
        for text in [
            "postgresql://db/sqlite",
            "postgresql+asyncpg://mysql:mysql@mysql/mysql",
            "jdbc:postgresql://db/shop",
            "host=db password=mysql://x",
            "sqlite",
            "mysql",
            "dbname=sqlite",
            "no such file.sqlite3",
            "",
        ] {
            assert!(refuse_url(text).is_ok() && refuse_file(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_sqlite_file_is_known_by_its_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("a.db"), b"SQLite format 3\0and more").unwrap();
        std::fs::write(path("b.sqlite3"), b"SQLite format 3").unwrap();
        assert!(refuse_file(&path("a.db")).is_err());
        assert!(refuse_file(&path("b.sqlite3")).is_ok());
        assert!(refuse_file(&folder.path().display().to_string()).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn looking_for_other_systems_never_panics(text in ".{0,80}") {
            let _ = refuse_url(&text);
            let _ = refuse_file(&text);
        }
    }
}
