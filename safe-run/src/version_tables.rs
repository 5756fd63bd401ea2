//! The history tables of the migration tools that we know, before and after a command: which migrations it added is what a
//! person wants to read about `safe-run -- alembic upgrade head`.
//!
//! For the report alone: nothing is decided by it, and a table that can't be read is left out. It is read by COPY
//! (`history_tables.rs`), so that nobody's code runs for it.

use std::{collections::BTreeSet, fmt};

use common::{
    Result,
    cli::format::plural,
    ident::{QualifiedName, printable},
    postgres::Session,
};
use serde::{Deserialize, Serialize};

use crate::history_tables::{self, Candidate};

/// Most versions that are read of one table; a longer history is cut, and then only its length is compared.
const MAX_VERSIONS: usize = 50_000;

/// A tool's table: its name, the columns by which it is known, those of the version, and the one that tells the newest.
pub(crate) struct Known {
    pub tool: &'static str,
    pub table: &'static str,
    pub columns: &'static [&'static str],
    /// The columns of the version as a person reads it, and what stands between them; one that is NULL is left out.
    shown: &'static [&'static str],
    between: &'static str,
    order: &'static str,
    /// The columns in which names or versions of migrations stand.
    pub names: &'static [&'static str],
    /// The endings of the files that the tool runs.
    pub endings: &'static [&'static str],
    /// How it is told to migrate.
    pub command: &'static str,
    /// One row stands for everything before it too.
    pub up_to: bool,
    /// The columns tell the tool, whatever the table is called; of two columns only if there are no others.
    pub by_columns: bool,
}

/// A tool whose version stands in one column of `columns`, as `order` does.
const fn known(
    tool: &'static str,
    table: &'static str,
    columns: &'static [&'static str],
    version: &'static [&'static str; 1],
    order: &'static str,
) -> Known {
    let (names, endings): (&[&str], &[&str]) = (&[], &["sql"]);
    Known {
        tool,
        table,
        columns,
        shown: version,
        between: "",
        order,
        names,
        endings,
        command: "",
        up_to: false,
        by_columns: false,
    }
}

impl Known {
    /// Where it writes what it applied, and how it is run.
    const fn records(mut self, names: &'static [&'static str], command: &'static str) -> Self {
        self.names = names;
        self.command = command;
        self
    }

    /// The version is made of several columns.
    const fn shown(mut self, columns: &'static [&'static str], between: &'static str) -> Self {
        self.shown = columns;
        self.between = between;
        self
    }

    const fn runs(mut self, endings: &'static [&'static str]) -> Self {
        self.endings = endings;
        self
    }

    const fn up_to(mut self) -> Self {
        self.up_to = true;
        self
    }

    const fn by_columns(mut self) -> Self {
        self.by_columns = true;
        self
    }
}

const SCRIPTS: &[&str] = &["js", "ts", "mjs", "cjs", "mts", "cts", "sql"];

/// The first that fits a table names its tool. Whatever `order` names is among the columns.
pub(crate) const TOOLS: [Known; 41] = [
    known("Alembic", "alembic_version", &["version_num"], &["version_num"], "version_num")
        .records(&["version_num"], "alembic upgrade head")
        .runs(&["py"])
        .by_columns(),
    known("Django", "django_migrations", &["app", "name", "id"], &["name"], "id")
        .shown(&["app", "name"], ".")
        .records(&["name"], "python manage.py migrate")
        .runs(&["py"]),
    known("golang-migrate", "schema_migrations", &["version", "dirty"], &["version"], "version")
        .records(&["version"], "migrate -path DIR -database URL up")
        .up_to()
        .by_columns(),
    known("Ecto", "schema_migrations", &["version", "inserted_at"], &["version"], "version")
        .records(&["version"], "mix ecto.migrate")
        .runs(&["exs", "ex", "sql"]),
    known("the Supabase CLI", "schema_migrations", &["version", "statements"], &["version"], "version")
        .records(&["version", "name"], "supabase migration up --db-url URL"),
    known("Rails or dbmate", "schema_migrations", &["version"], &["version"], "version")
        .records(&["version"], "bin/rails db:migrate")
        .runs(&["rb", "sql"]),
    known("Liquibase", "databasechangelog", &["id", "author", "orderexecuted"], &["id"], "orderexecuted")
        .records(&["filename", "id"], "liquibase update")
        .runs(&["sql", "xml", "yaml", "yml", "json"])
        .by_columns(),
    known(
        "Sqitch",
        "changes",
        &["change", "change_id", "planner_name", "committed_at"],
        &["change"],
        "committed_at",
    )
    .records(&["change"], "sqitch deploy")
    .by_columns(),
    known("Drizzle", "__drizzle_migrations", &["hash", "created_at"], &["hash"], "created_at")
        .records(&["hash", "created_at", "name"], "npx drizzle-kit migrate"),
    known("Knex", "knex_migrations", &["name", "id", "batch", "migration_time"], &["name"], "id")
        .records(&["name"], "npx knex migrate:latest")
        .runs(SCRIPTS)
        .by_columns(),
    known("node-pg-migrate", "pgmigrations", &["name", "id", "run_on"], &["name"], "id")
        .records(&["name"], "npx node-pg-migrate up")
        .runs(SCRIPTS),
    known(
        "Prisma",
        "_prisma_migrations",
        &["migration_name", "started_at"],
        &["migration_name"],
        "started_at",
    )
    .records(&["migration_name"], "npx prisma migrate deploy")
    .by_columns(),
    known(
        "Flyway",
        "flyway_schema_history",
        &["version", "description", "installed_rank"],
        &["version"],
        "installed_rank",
    )
    .shown(&["version", "description"], " ")
    .records(&["version", "script"], "flyway migrate")
    .by_columns(),
    known(
        "pgmigrate",
        "schema_version",
        &["version", "description", "type", "installed_by", "installed_on"],
        &["version"],
        "version",
    )
    .records(&["version"], "pgmigrate -t latest migrate"),
    known("tern", "schema_version", &["version"], &["version"], "version")
        .records(&["version"], "tern migrate")
        .up_to(),
    known(
        "sqlx",
        "_sqlx_migrations",
        &["version", "checksum", "success", "installed_on"],
        &["version"],
        "version",
    )
    .records(&["version"], "sqlx migrate run")
    .by_columns(),
    known("goose", "goose_db_version", &["version_id", "id", "is_applied"], &["version_id"], "id")
        .records(&["version_id"], "goose postgres URL up")
        .by_columns(),
    known("micrate", "micrate_db_version", &["version_id", "id"], &["version_id"], "id")
        .records(&["version_id"], "micrate up"),
    known("Diesel", "__diesel_schema_migrations", &["version", "run_on"], &["version"], "version")
        .records(&["version"], "diesel migration run")
        .by_columns(),
    known(
        "refinery",
        "refinery_schema_history",
        &["version", "applied_on", "checksum"],
        &["version"],
        "version",
    )
    .records(&["version"], "refinery migrate -e DATABASE_URL")
    .by_columns(),
    known("Laravel", "migrations", &["migration", "batch", "id"], &["migration"], "id")
        .records(&["migration"], "php artisan migrate")
        .runs(&["php", "sql"]),
    known("Graphile Migrate", "migrations", &["filename", "previous_hash"], &["filename"], "filename")
        .records(&["filename"], "npx graphile-migrate migrate")
        .by_columns(),
    known("postgres-migrations", "migrations", &["id", "name", "hash", "executed_at"], &["name"], "id")
        .records(&["id"], "npx pg-migrations apply")
        .runs(&["sql", "js"]),
    known("TypeORM", "migrations", &["id", "timestamp", "name"], &["name"], "id")
        .records(&["timestamp", "name"], "npx typeorm migration:run")
        .runs(SCRIPTS),
    known("db-migrate", "migrations", &["id", "name", "run_on"], &["name"], "id")
        .records(&["name"], "npx db-migrate up")
        .runs(SCRIPTS),
    known("rambler", "migrations", &["migration"], &["migration"], "migration")
        .records(&["migration"], "rambler apply --all"),
    known(
        "Atlas",
        "atlas_schema_revisions",
        &["version", "description", "executed_at", "operator_version"],
        &["version"],
        "version",
    )
    .records(&["version"], "atlas migrate apply --url URL")
    .by_columns(),
    known("sql-migrate", "gorp_migrations", &["id", "applied_at"], &["id"], "applied_at")
        .records(&["id"], "sql-migrate up"),
    known("yoyo", "_yoyo_migration", &["migration_hash", "migration_id"], &["migration_id"], "migration_id")
        .records(&["migration_id"], "yoyo apply --database URL DIR")
        .runs(&["sql", "py"])
        .by_columns(),
    known("Play evolutions", "play_evolutions", &["id", "apply_script", "revert_script"], &["id"], "id")
        .records(&["id"], "sbt run")
        .by_columns(),
    known("Sequelize", "SequelizeMeta", &["name"], &["name"], "name")
        .records(&["name"], "npx sequelize-cli db:migrate")
        .runs(SCRIPTS),
    known("MikroORM", "mikro_orm_migrations", &["id", "name", "executed_at"], &["name"], "id")
        .records(&["name"], "npx mikro-orm migration:up")
        .runs(SCRIPTS),
    known("Kysely", "kysely_migration", &["name", "timestamp"], &["name"], "name")
        .records(&["name"], "npx kysely migrate:latest")
        .runs(SCRIPTS),
    known("shmig", "shmig_version", &["version"], &["version"], "version").records(&["version"], "shmig up"),
    known("MyBatis Migrations", "changelog", &["id", "applied_at", "description"], &["id"], "id")
        .records(&["id"], "migrate up"),
    known("bun", "bun_migrations", &["name", "group_id", "id"], &["name"], "id")
        .records(&["name"], "YOUR-PROGRAM migrate")
        .runs(&["sql", "go"]),
    known("DbUp", "schemaversions", &["scriptname", "applied"], &["scriptname"], "applied")
        .records(&["scriptname"], "YOUR-PROGRAM")
        .by_columns(),
    known("Doctrine", "doctrine_migration_versions", &["version", "executed_at"], &["version"], "version")
        .records(&["version"], "php bin/console doctrine:migrations:migrate")
        .runs(&["php", "sql"]),
    known("Phinx", "phinxlog", &["version", "migration_name", "start_time"], &["version"], "version")
        .records(&["version"], "vendor/bin/phinx migrate")
        .runs(&["php", "sql"])
        .by_columns(),
    known(
        "Entity Framework",
        "__EFMigrationsHistory",
        &["MigrationId", "ProductVersion"],
        &["MigrationId"],
        "MigrationId",
    )
    .records(&["MigrationId"], "dotnet ef database update")
    .runs(&["cs", "sql"])
    .by_columns(),
    known("Evolve", "changelog", &["id", "version", "description", "name", "checksum"], &["version"], "id")
        .records(&["version", "name"], "evolve migrate postgresql"),
];

/// One history table, before and after a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionTable {
    /// The tool.
    pub tool: String,
    /// The table as a person writes it.
    pub table: String,
    /// Rows before; `None` when the table was not there.
    pub before: Option<usize>,
    /// Rows after; `None` when the table is gone.
    pub after: Option<usize>,
    /// The newest version before; `None` when the table was empty or not there.
    #[serde(default)]
    pub newest_before: Option<String>,
    /// The newest version after; `None` when the table is empty or gone.
    #[serde(default)]
    pub newest_after: Option<String>,
    /// Versions that are there now and were not.
    pub added: Vec<String>,
    /// Versions that were there and are gone.
    pub removed: Vec<String>,
}

impl VersionTable {
    /// Whether it is as it was.
    pub fn is_unchanged(&self) -> bool {
        let moved = self.before != self.after || self.newest_before != self.newest_after;
        !moved && self.added.is_empty() && self.removed.is_empty()
    }

    fn at(rows: Option<usize>, newest: Option<&String>) -> String {
        match rows {
            None => "not there".to_owned(),
            Some(rows) => {
                let newest = newest.map_or("empty".to_owned(), |newest| printable(newest));
                format!("{newest} ({})", plural(rows as u64, "row", "rows"))
            }
        }
    }

    /// The line of a run whose command was undone: where the history stands again.
    pub fn told_as_undone(&self) -> String {
        let old = Self::at(self.before, self.newest_before.as_ref());
        if self.is_unchanged() {
            return self.to_string();
        }
        let again = if self.before.is_none() { format!("{old} again") } else { format!("back at {old}") };
        let new = Self::at(self.after, self.newest_after.as_ref());
        format!("{} is {again}; the command had left it at {new}", self.table)
    }
}

impl fmt::Display for VersionTable {
    /// Where the history stood and stands, as one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let old = Self::at(self.before, self.newest_before.as_ref());
        let new = Self::at(self.after, self.newest_after.as_ref());
        if self.is_unchanged() {
            write!(f, "{} is unchanged at {new}", self.table)
        } else {
            write!(f, "{}: {old} → {new}", self.table)
        }
    }
}

/// A history table as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    tool: &'static str,
    table: String,
    rows: usize,
    newest: Option<String>,
    versions: BTreeSet<String>,
}

/// Whether a table is the history of a tool that we know.
pub fn is_history(table: &str, has_column: impl Fn(&str) -> bool) -> bool {
    tool_of(table, has_column).is_some()
}

/// The tool whose history a table of this name with these columns is.
pub fn tool_of(table: &str, has_column: impl Fn(&str) -> bool) -> Option<&'static str> {
    let known = TOOLS
        .iter()
        .find(|known| known.table == table && known.columns.iter().all(|column| has_column(column)));
    known.map(|known| known.tool)
}

/// Reads the histories that are there. The session is left as it was found.
///
/// # Errors
/// The connection's own.
pub async fn read(session: &Session) -> Result<Vec<History>> {
    let found = history_tables::candidates(session).await?;
    let known: Vec<(&Candidate, &Known, Vec<String>)> = found
        .iter()
        .filter_map(|candidate| {
            let tool = candidate.tool?;
            let read = tool.read(&candidate.plain)?;
            Some((candidate, tool, read))
        })
        .collect();
    let wanted: Vec<(&QualifiedName, &[String])> =
        known.iter().map(|(candidate, _, read)| (&candidate.table, read.as_slice())).collect();
    let contents = history_tables::contents(session, &wanted).await?;
    let mut histories: Vec<History> = known
        .iter()
        .zip(contents)
        .filter_map(|((candidate, tool, read), text)| {
            let rows = history_tables::rows(&text?, read.len());
            Some(tool.holds(candidate.table.short(), &rows))
        })
        .collect();
    histories.sort_by(|one, other| one.table.cmp(&other.table));
    Ok(histories)
}

impl Known {
    /// The columns to read: those of the version, then what tells the newest. `None` where one has a type of the database's own.
    fn read(&self, plain: &[String]) -> Option<Vec<String>> {
        // COPY takes no column twice.
        let order = Some(&self.order).filter(|order| !self.shown.contains(order));
        let wanted = self.shown.iter().chain(order);
        wanted.map(|name| plain.iter().find(|column| column == name).cloned()).collect()
    }

    /// `rows`: the columns of [`Self::read`]. Pure.
    fn holds(&self, table: String, rows: &[Vec<Option<String>>]) -> History {
        let version = |row: &Vec<Option<String>>| {
            let parts: Vec<&str> =
                row.iter().take(self.shown.len()).filter_map(|part| part.as_deref()).collect();
            (!parts.is_empty()).then(|| parts.join(self.between))
        };
        let place = |row: &&Vec<Option<String>>| {
            let at = self.shown.iter().position(|column| *column == self.order);
            let value = row.get(at.unwrap_or(self.shown.len())).cloned().flatten();
            (value.as_ref().map(|value| value.parse::<i128>().ok()), value)
        };
        History {
            tool: self.tool,
            table,
            rows: rows.len(),
            newest: rows.iter().max_by_key(place).and_then(version),
            versions: rows.iter().take(MAX_VERSIONS).filter_map(version).collect(),
        }
    }
}

/// What became of each table. Pure.
pub fn compare(before: &[History], after: &[History]) -> Vec<VersionTable> {
    let tables: BTreeSet<&str> = before.iter().chain(after).map(|history| history.table.as_str()).collect();
    let nothing = BTreeSet::new();
    tables
        .into_iter()
        .map(|table| {
            let find = |list: &[History]| list.iter().find(|history| history.table == table).cloned();
            let (then, now) = (find(before), find(after));
            let cut = then.iter().chain(&now).any(|history| history.rows > MAX_VERSIONS);
            let versions = |history: &Option<History>| {
                history.as_ref().filter(|_| !cut).map_or(nothing.clone(), |history| history.versions.clone())
            };
            let (old, new) = (versions(&then), versions(&now));
            VersionTable {
                tool: now.as_ref().or(then.as_ref()).map_or("", |history| history.tool).to_owned(),
                table: table.to_owned(),
                before: then.as_ref().map(|history| history.rows),
                after: now.as_ref().map(|history| history.rows),
                newest_before: then.and_then(|history| history.newest),
                newest_after: now.and_then(|history| history.newest),
                added: new.difference(&old).cloned().collect(),
                removed: old.difference(&new).cloned().collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(table: &str, versions: &[&str]) -> History {
        let versions: BTreeSet<String> = versions.iter().map(|&version| version.to_owned()).collect();
        let newest = versions.last().cloned();
        History { tool: "Alembic", table: table.to_owned(), rows: versions.len(), newest, versions }
    }

    #[test]
    fn no_column_is_read_twice_and_the_newest_row_is_told_as_its_tool_writes_it() {
        let tool = |name: &str| TOOLS.iter().find(|known| known.tool == name).unwrap();
        for known in &TOOLS {
            let columns: Vec<String> = known.columns.iter().map(|name| (*name).to_owned()).collect();
            let read =
                known.read(&columns).unwrap_or_else(|| panic!("{} is known by other columns", known.tool));
            let unique: BTreeSet<&String> = read.iter().collect();
            assert_eq!(unique.len(), read.len(), "{}: {read:?}", known.tool);
        }
        let rows = |rows: &[&[&str]]| -> Vec<Vec<Option<String>>> {
            let value = |value: &&str| (!value.is_empty()).then(|| (*value).to_owned());
            rows.iter().map(|row| row.iter().map(value).collect()).collect()
        };
        let alembic = tool("Alembic").holds("a".to_owned(), &rows(&[&["a1"]]));
        assert_eq!((alembic.rows, alembic.newest.as_deref()), (1, Some("a1")));
        // By the number of the row, and not by its text.
        let django = rows(&[&["shop", "0002_b", "10"], &["shop", "0001_a", "9"]]);
        assert_eq!(tool("Django").holds("d".to_owned(), &django).newest.as_deref(), Some("shop.0002_b"));
        // A repeatable one of Flyway has no version.
        let flyway = rows(&[&["1", "one", "1"], &["", "views", "2"]]);
        let told = tool("Flyway").holds("f".to_owned(), &flyway);
        assert_eq!(told.newest.as_deref(), Some("views"));
        assert_eq!(told.versions.into_iter().collect::<Vec<_>>(), ["1 one", "views"]);
    }

    #[test]
    fn added_and_removed_versions_are_told_and_so_are_new_tables() {
        let told = compare(&[history("a", &["1", "2"])], &[history("a", &["2", "3"]), history("b", &["x"])]);
        assert_eq!(told[0].added, ["3"]);
        assert_eq!(told[0].removed, ["1"]);
        assert_eq!((told[0].before, told[0].after), (Some(2), Some(2)));
        assert_eq!((told[1].before, told[1].after, told[1].added.len()), (None, Some(1), 1));
    }

    #[test]
    fn what_moved_and_what_did_not_are_told_apart() {
        let before =
            [history("a", &["1", "2"]), history("b", &["x"]), history("e", &[]), history("gone", &["1"])];
        let after =
            [history("a", &["1", "3"]), history("b", &["x"]), history("e", &[]), history("new", &["1"])];
        let told: Vec<String> = compare(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "a: 2 (2 rows) → 3 (2 rows)",
                "b is unchanged at x (1 row)",
                "e is unchanged at empty (0 rows)",
                "gone: 1 (1 row) → not there",
                "new: not there → 1 (1 row)",
            ]
        );
    }

    #[test]
    fn what_was_undone_is_told_as_it_is_again() {
        let after = [history("a", &["1", "3"]), history("b", &["x"]), history("new", &["1"])];
        let before = [history("a", &["1", "2"]), history("b", &["x"])];
        let told: Vec<String> = compare(&before, &after).iter().map(VersionTable::told_as_undone).collect();
        assert_eq!(
            told,
            [
                "a is back at 2 (2 rows); the command had left it at 3 (2 rows)",
                "b is unchanged at x (1 row)",
                "new is not there again; the command had left it at 1 (1 row)",
            ]
        );
    }

    #[test]
    fn a_history_that_was_cut_names_no_versions() {
        let mut long = history("a", &["1"]);
        long.rows = MAX_VERSIONS + 1;
        let told = compare(&[history("a", &["2"])], &[long]);
        assert!(told[0].added.is_empty() && told[0].removed.is_empty());
    }
}
