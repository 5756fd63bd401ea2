//! The tables that migration tools keep for themselves, and how each is known. Pure.

/// A tool's table: its name, the columns by which it is known, those of the version, and the one that tells the newest.
pub struct Known {
    /// The tool, as a person calls it.
    pub tool: &'static str,
    /// The table's name.
    pub table: &'static str,
    /// The columns by which it is known.
    pub columns: &'static [&'static str],
    /// The columns of the version as a person reads it, and what stands between them; one that is NULL is left out.
    pub shown: &'static [&'static str],
    /// What stands between the columns of the version.
    pub between: &'static str,
    /// The column that tells the newest.
    pub order: &'static str,
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
    /// A namespace may stand before the name of a file: `Shop.Scripts.001_a.sql`.
    pub has_namespaces: bool,
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
        has_namespaces: false,
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

    const fn has_namespaces(mut self) -> Self {
        self.has_namespaces = true;
        self
    }
}

const SCRIPTS: &[&str] = &["js", "ts", "mjs", "cjs", "mts", "cts", "sql"];

/// The first that fits a table names its tool. Whatever `order` names is among the columns.
pub const TOOLS: [Known; 41] = [
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
    known(
        "DbUp",
        "schemaversions",
        &["schemaversionsid", "scriptname", "applied"],
        &["scriptname"],
        "schemaversionsid",
    )
    .records(&["scriptname"], "YOUR-PROGRAM")
    .by_columns()
    .has_namespaces(),
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

/// Tables that belong to a tool for migrations beside its history: locks, and what it knows of its environment.
const COMPANIONS: [&str; 6] = [
    "knex_migrations_lock",
    "kysely_migration_lock",
    "ar_internal_metadata",
    "typeorm_metadata",
    "aerich",
    "migratehistory",
];

/// The tool whose history a table of this name with these columns is.
pub fn tool_of(table: &str, has_column: impl Fn(&str) -> bool) -> Option<&'static str> {
    let known = TOOLS
        .iter()
        .find(|known| known.table == table && known.columns.iter().all(|column| has_column(column)));
    known.map(|known| known.tool)
}

/// Why a table of SQLite is left alone: what a migration tool keeps in it is each database's own.
pub fn keeps(table: &str, has_column: impl Fn(&str) -> bool) -> Option<String> {
    if let Some(tool) = tool_of(table, has_column) {
        return Some(format!("the history of {tool}: the one in PostgreSQL is its own"));
    }
    COMPANIONS.contains(&table).then(|| "a migration tool keeps it for itself".to_owned())
}
