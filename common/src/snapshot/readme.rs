//! The files that make a snapshot restorable by hand: README.txt, load.sh, sequences.sql, views.sql, database.sql.
//!
//! They need pg_restore, psql and the codec's stock tool, and nothing of ours. Names from the database appear only
//! quoted, and only inside `load.sh` and the SQL files.

use std::fmt::Write as _;

use super::{
    Manifest,
    copy_sql::copy_in_statement,
    manifest::{
        DATABASE_FILE, GLOBALS_FILE, LIST_FILE, LOAD_SCRIPT_FILE, SCHEMA_FILE, SEQUENCES_FILE, VIEWS_FILE,
    },
};
use crate::{
    Ident,
    catalog::{DatabaseSetting, DatabaseState, MaterializedView, Role, Sequence},
    ident::{literal, printable, shell_word},
};

/// `setval` for every sequence.
pub fn sequences_sql(sequences: &[Sequence], of_extensions: &[Sequence]) -> String {
    let mut out = String::from("-- Run after the data is loaded.\n");
    for sequence in sequences.iter().chain(of_extensions) {
        let _ = writeln!(out, "{};", setval(sequence));
    }
    out
}

/// The statement that puts one sequence where it stood.
pub fn setval(sequence: &Sequence) -> String {
    format!(
        "SELECT pg_catalog.setval({}::pg_catalog.regclass, {}, {})",
        literal(&sequence.name.to_string()),
        sequence.last_value,
        sequence.is_called
    )
}

/// `REFRESH` for every view that was filled, in an order that works. With an empty search path, as pg_restore does it.
pub fn views_sql(views: &[MaterializedView]) -> String {
    let mut out =
        String::from("-- Run last. Fills the materialized views, in this order.\nSET search_path = '';\n");
    for view in views.iter().filter(|view| view.is_populated) {
        let _ = writeln!(out, "REFRESH MATERIALIZED VIEW {};", view.name);
    }
    out
}

/// What belongs to the database itself, as statements about the database `target`, one per line of the list.
///
/// Owner first, so that the grants that follow come from the right role.
pub fn database_statements(state: &DatabaseState, target: &str) -> Vec<String> {
    let name = Ident::new(target);
    let mut out = vec![format!("ALTER DATABASE {name} OWNER TO {}", Ident::new(&*state.owner))];
    out.push(format!("ALTER DATABASE {name} CONNECTION LIMIT {}", state.connection_limit));
    if let Some(comment) = &state.comment {
        out.push(format!("COMMENT ON DATABASE {name} IS {}", literal(comment)));
    }
    for (provider, label) in &state.security_labels {
        let provider = Ident::new(&**provider);
        out.push(format!("SECURITY LABEL FOR {provider} ON DATABASE {name} IS {}", literal(label)));
    }
    if let Some(acl) = &state.acl {
        // Start from nothing: the defaults (CONNECT and TEMPORARY for PUBLIC) were replaced by this list.
        out.push(format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"));
        out.push(format!("REVOKE ALL ON DATABASE {name} FROM {}", Ident::new(&*state.owner)));
        for grant in acl {
            let grantee =
                grant.grantee.as_ref().map_or("PUBLIC".to_owned(), |role| Ident::new(&**role).to_string());
            let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
            out.push(format!("GRANT {} ON DATABASE {name} TO {grantee}{option}", grant.privilege));
        }
    }
    out.extend(state.settings.iter().map(|setting| setting_statement(setting, target)));
    if state.is_template {
        out.push(template_statement(target, true));
    }
    out
}

/// The statement that makes `target` a template, or none any more.
pub fn template_statement(target: &str, is_template: bool) -> String {
    format!("ALTER DATABASE {} IS_TEMPLATE {is_template}", Ident::new(target))
}

/// The statement of one setting of the database `target`, or of a role in it.
pub fn setting_statement(setting: &DatabaseSetting, target: &str) -> String {
    let name = Ident::new(target);
    let scope = match &setting.role {
        Some(role) => format!("ALTER ROLE {} IN DATABASE {name}", Ident::new(&**role)),
        None => format!("ALTER DATABASE {name}"),
    };
    // Parameters with a class (`app.user`) are quoted part by part.
    set_statement(&scope, &setting.name, &setting.value)
}

/// `ALTER … SET`. A list without elements can't be written: `''` would be a list of one name without letters, with which
/// `session_preload_libraries` lets nobody connect. It is taken over from the session, whose value it is until the end of the
/// transaction, which both statements have to be in.
fn set_statement(scope: &str, name: &str, value: &str) -> String {
    let parameter: Vec<String> = name.split('.').map(|part| Ident::new(part).to_string()).collect();
    let parameter = parameter.join(".");
    match setting_value(name, value) {
        Some(value) => format!("{scope} SET {parameter} TO {value}"),
        None => format!(
            "{EMPTY_LIST}{}, '', true); {scope} SET {parameter} FROM CURRENT",
            literal(&name.to_ascii_lowercase())
        ),
    }
}

/// How the statements for an empty list begin.
const EMPTY_LIST: &str = "SELECT pg_catalog.set_config(";

/// A statement as a line of a file that psql runs.
fn file_line(statement: &str) -> String {
    if statement.starts_with(EMPTY_LIST) {
        format!("BEGIN; {statement}; COMMIT;")
    } else {
        format!("{statement};")
    }
}

/// Parameters whose stored value is a list of identifiers, already quoted: one quoted string would be one element.
/// The list is PostgreSQL's own (`GUC_LIST_QUOTE`, which extensions may not use).
const LIST_PARAMETERS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// The value as SET takes it; none for a list without elements.
fn setting_value(name: &str, value: &str) -> Option<String> {
    if LIST_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) {
        let parts = split_identifier_list(value);
        let parts: Vec<String> = parts.iter().map(|part| literal(part)).collect();
        return (!parts.is_empty()).then(|| parts.join(", "));
    }
    Some(literal(value))
}

/// Takes a stored list of names apart, such as `"$user", public, "odd ""name"`.
pub fn split_identifier_list(value: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut chars = value.chars().peekable();
    loop {
        while chars.peek().is_some_and(|c| c.is_whitespace() || *c == ',') {
            chars.next();
        }
        let Some(&first) = chars.peek() else { return parts };
        let mut part = String::new();
        if first == '"' {
            chars.next();
            while let Some(c) = chars.next() {
                if c != '"' {
                    part.push(c);
                } else if chars.peek() == Some(&'"') {
                    part.push('"');
                    chars.next();
                } else {
                    break;
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',' && !c.is_whitespace()) {
                part.push(c);
            }
        }
        parts.push(part);
    }
}

/// `database.sql`: [`database_statements`] for the database's own name.
pub fn database_sql(state: &DatabaseState) -> String {
    let mut out = String::from(
        "-- What belongs to the database itself. Replace the name if you restored under another one.\n",
    );
    for statement in database_statements(state, &state.name) {
        let _ = writeln!(out, "{}", file_line(&statement));
    }
    out
}

/// The statements that make a role, one per line of the list. It has no password: nobody can log in with one until a
/// person sets it. Memberships come apart, in [`membership_statements`], because roles can be members of each other.
pub fn role_statements(role: &Role) -> Vec<String> {
    let name = Ident::new(&*role.name);
    let attributes: Vec<&str> = role.attributes.iter().map(|attribute| attribute.as_str()).collect();
    let mut create = format!("CREATE ROLE {name} {}", attributes.join(" "));
    if role.connection_limit != -1 {
        let _ = write!(create, " CONNECTION LIMIT {}", role.connection_limit);
    }
    if let Some(until) = &role.valid_until {
        let _ = write!(create, " VALID UNTIL {}", literal(until));
    }
    let mut out = vec![create];
    out.extend(
        role.settings
            .iter()
            .map(|(parameter, value)| set_statement(&format!("ALTER ROLE {name}"), parameter, value)),
    );
    if let Some(comment) = &role.comment {
        out.push(format!("COMMENT ON ROLE {name} IS {}", literal(comment)));
    }
    out
}

/// The statements that make a role a member of others.
pub fn membership_statements(role: &Role) -> Vec<String> {
    let name = Ident::new(&*role.name);
    role.member_of
        .iter()
        .map(|(group, may_admit)| {
            let option = if *may_admit { " WITH ADMIN OPTION" } else { "" };
            format!("GRANT {} TO {name}{option}", Ident::new(&**group))
        })
        .collect()
}

/// `globals.sql`: every role that the schema names, then their memberships.
pub fn globals_sql(roles: &[Role]) -> String {
    let mut out = String::from(
        "-- Roles that this database names, without passwords. Those that exist already give an error each.\n",
    );
    let statements =
        roles.iter().flat_map(role_statements).chain(roles.iter().flat_map(membership_statements));
    for statement in statements {
        let _ = writeln!(out, "{}", file_line(&statement));
    }
    out
}

/// The statement that makes an empty database like the one of the snapshot, under the name `target`.
///
/// Always from template0: additions to template1 must not mix with the snapshot's objects. `target_major` decides
/// which options exist.
pub fn create_database_statement(state: &DatabaseState, target: &str, target_major: u32) -> String {
    let mut out = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        Ident::new(target),
        literal(&state.encoding),
        literal(&state.collate),
        literal(&state.ctype)
    );
    if target_major >= 15 && state.locale_provider.as_str() != "libc" {
        let _ = write!(out, " LOCALE_PROVIDER {}", state.locale_provider);
        if let Some(locale) = &state.locale {
            let option =
                if state.locale_provider.as_str() == "icu" { "ICU_LOCALE" } else { "BUILTIN_LOCALE" };
            let _ = write!(out, " {option} {}", literal(locale));
        }
        if let (Some(rules), true) = (&state.icu_rules, target_major >= 16) {
            let _ = write!(out, " ICU_RULES {}", literal(rules));
        }
    }
    if state.tablespace != "pg_default" {
        let _ = write!(out, " TABLESPACE {}", Ident::new(&*state.tablespace));
    }
    out
}

/// The shell script that loads every chunk with psql.
///
/// `identities`: statements for servers before 15, which understand the archive's form of them not.
pub fn load_script(manifest: &Manifest, identities: &[String]) -> String {
    let decoder = manifest.codec.stock_decoder();
    let mut out = String::from(
        "#!/bin/sh\n\
         # Loads the rows of this snapshot into the database of PGDATABASE. Run it inside the snapshot's folder, after\n\
         # the pre-data section and before the post-data section; README.txt has the order.\n\
         set -eu\n\
         load() { # FILE STATEMENT\n",
    );
    let _ = writeln!(out, "  {decoder} \"$1\" > \"$fifo\" & decoder=$!");
    out.push_str(
        "  psql -X -q -v ON_ERROR_STOP=1 -c \"$2\" < \"$fifo\"\n\
         \x20 wait \"$decoder\" || { echo \"could not decode $1\" >&2; exit 1; }\n\
         }\n\
         # The rows are text of a session with these settings; no setting of the role or the database may change how it is read.\n\
         export PGOPTIONS='-c search_path= -c row_security=off -c statement_timeout=0 -c lock_timeout=0 \
-c idle_in_transaction_session_timeout=0 -c DateStyle=ISO,YMD -c IntervalStyle=postgres -c TimeZone=UTC \
-c lc_monetary=C -c xmloption=content -c array_nulls=on -c standard_conforming_strings=on -c default_transaction_read_only=off'\n\
         dir=$(mktemp -d); fifo=$dir/rows; mkfifo \"$fifo\"\n\
         trap 'rm -r \"$dir\"' EXIT\n",
    );
    if !identities.is_empty() {
        out.push_str(
            "# Identity columns of unlogged tables: before PostgreSQL 15 pg_restore could not make them, and says so.\n\
             if [ \"$(psql -X -A -t -c 'SHOW server_version_num')\" -lt 150000 ]; then\n\
             \x20 psql -X -q -v ON_ERROR_STOP=1",
        );
        for statement in identities {
            let _ = write!(out, " \\\n    -c {}", shell_word(statement));
        }
        out.push_str("\nfi\n");
    }
    for table in &manifest.tables {
        let statement = shell_word(&copy_in_statement(&table.table, &manifest.database.encoding));
        for chunk in &table.chunks {
            let _ = writeln!(out, "load {} {statement}", shell_word(&chunk.path));
        }
    }
    if let Some(objects) = &manifest.large_objects {
        out.push_str("psql -X -q -v ON_ERROR_STOP=1 -c 'CREATE SCHEMA safe_run_restore' -c 'CREATE TABLE safe_run_restore.objects (oid oid, owner text, acl text, comment text)' -c 'CREATE TABLE safe_run_restore.pages (loid oid, pageno int, data bytea)'\n");
        let _ = writeln!(
            out,
            "load {} 'COPY safe_run_restore.objects FROM STDIN'",
            shell_word(&objects.metadata.path)
        );
        for chunk in &objects.pages {
            let _ =
                writeln!(out, "load {} 'COPY safe_run_restore.pages FROM STDIN'", shell_word(&chunk.path));
        }
        let statements: Vec<String> =
            large_object_statements("safe_run_restore.objects", "safe_run_restore.pages")
                .iter()
                .map(|statement| format!(" -c {}", shell_word(statement)))
                .collect();
        let _ = writeln!(
            out,
            "psql -X -q -o /dev/null -v ON_ERROR_STOP=1{} -c 'SET client_min_messages = warning' -c 'DROP SCHEMA safe_run_restore CASCADE'",
            statements.concat()
        );
    }
    let _ = writeln!(out, "psql -X -q -v ON_ERROR_STOP=1 -o /dev/null -f {SEQUENCES_FILE}");
    out
}

/// The statements that make large objects from their two tables: objects and pages, then owner, comment and grants.
pub fn large_object_statements(objects: &str, pages: &str) -> [String; 3] {
    [
        format!("SELECT count(pg_catalog.lo_create(oid)) FROM {objects}"),
        // 2048: LOBLKSIZE, the page size of large objects in every stock build.
        format!("SELECT count(pg_catalog.lo_put(loid, pageno::bigint * 2048, data)) FROM {pages}"),
        format!(
            // The text of an ACL with nobody in it comes back as an array without a dimension, which aclexplode refuses.
            "DO $$ DECLARE o record; g record; BEGIN FOR o IN SELECT * FROM {objects} LOOP \
             EXECUTE format('ALTER LARGE OBJECT %s OWNER TO %I', o.oid, o.owner); \
             IF o.comment IS NOT NULL THEN EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', o.oid, o.comment); END IF; \
             IF o.acl IS NOT NULL THEN \
             EXECUTE format('REVOKE ALL ON LARGE OBJECT %s FROM %I', o.oid, o.owner); \
             FOR g IN SELECT a.privilege_type, a.is_grantable, r.rolname FROM pg_catalog.aclexplode(NULLIF(o.acl, '{{}}')::pg_catalog.aclitem[]) a \
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee LOOP \
             EXECUTE format('GRANT %s ON LARGE OBJECT %s TO %s', g.privilege_type, o.oid, \
             coalesce(quote_ident(g.rolname), 'PUBLIC')) || CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END; \
             END LOOP; END IF; END LOOP; END $$"
        ),
    ]
}

/// The text of README.txt.
pub fn readme(manifest: &Manifest, identities: &[String]) -> String {
    let database = printable(&manifest.database.name);
    let create = create_database_statement(&manifest.database, "restored", manifest.server.major());
    let mut not_kept = String::new();
    for line in &manifest.not_kept {
        let _ = writeln!(not_kept, "  - {}", printable(line));
    }
    if !not_kept.is_empty() {
        not_kept = format!("\nWhat this snapshot does not bring back:\n\n{not_kept}");
    }
    format!(
        "Snapshot {id}\n\
         Database {database}, PostgreSQL {version}, taken {taken}\n\
         {tables} tables, {rows} rows\n\
         \n\
         {partial}This folder is a whole backup. `restore {id}` restores and verifies it. Without that program, PostgreSQL's own\n\
         pg_restore (version {dump} or newer), psql and `{decoder}` are enough:\n\
         \n\
         \x20 1. Check that nothing is damaged. manifest.json names the SHA-256 of every file.\n\
         \n\
         \x20 2. Make an empty database. Roles that own objects or hold grants must exist: {roles}\n\
         \n\
         {create}\n\
         \x20 3. Make the tables:\n\
         \n\
         \x20      export PGDATABASE=restored\n\
         \x20      pg_restore --exit-on-error --section=pre-data{list} --dbname=restored {SCHEMA_FILE}\n\
         \n\
         \x20 4. Load the rows and set the sequences:\n\
         \n\
         \x20      sh {LOAD_SCRIPT_FILE}\n\
         \n\
         \x20 5. Make indexes, constraints and triggers, and let the planner know the data:\n\
         \n\
         \x20      pg_restore --exit-on-error --section=post-data{list} --dbname=restored {SCHEMA_FILE}\n\
         \x20      psql -X -c 'ANALYZE'\n\
         \n\
         \x20    (--jobs=4 is faster. With partitioned tables leave it away: parallel jobs can leave their indexes invalid.)\n\
         \n\
         \x20 6. Fill the materialized views:\n\
         \n\
         \x20      psql -X -q -v ON_ERROR_STOP=1 -f {VIEWS_FILE}\n\
         \n\
         \x20 7. Give the database its owner, grants, comment and settings. {DATABASE_FILE} has them under the old name: change\n\
         \x20    that in a copy of the file, or rename the database first.\n\
         \n\
         \x20      psql -X -q -v ON_ERROR_STOP=1 -d postgres -f {DATABASE_FILE}\n\
         \n\
         pg_restore of PostgreSQL 17 and newer sets parameters that an older server does not know; into such a server leave\n\
         --exit-on-error away and expect exactly those errors.\n\
         {logged}\
         \n\
         Restoring runs the code that the database holds (functions, triggers, defaults). Restore a snapshot of unknown origin\n\
         only where that does no harm.\n\
         {not_kept}",
        partial = manifest.partial.as_ref().map_or(String::new(), |partial| format!(
            "PARTIAL: it holds only {}. What was left out is in manifest.json, as partial.left_out.\n\n",
            partial.filters
        )),
        list = if manifest.is_partial() { format!(" --use-list={LIST_FILE}") } else { String::new() },
        logged = if identities.is_empty() {
            ""
        } else {
            "\n\
             PostgreSQL 14 does not understand LOGGED in the identity columns of this snapshot's unlogged tables. Into 14, leave\n\
             --exit-on-error away; the errors are about that word and about comments and grants of those sequences, and load.sh\n\
             makes all of them before it loads the first row.\n"
        },
        id = manifest.id,
        version = printable(&manifest.server.version),
        taken = manifest.taken_at.format("%Y-%m-%d %H:%M:%S UTC"),
        tables = manifest.tables.len(),
        rows = manifest.rows(),
        dump = manifest.pg_dump_major,
        decoder = manifest.codec.stock_decoder(),
        roles = if manifest.roles.is_empty() {
            "none.".to_owned()
        } else {
            let names: Vec<String> =
                manifest.roles.iter().map(|role| printable(&Ident::new(&*role.name).to_string())).collect();
            let secret = if manifest.role_passwords {
                ", and holds their password hashes: keep it secret"
            } else {
                ""
            };
            format!("{} ({GLOBALS_FILE} makes them{secret}).", names.join(", "))
        },
        create = indent(&format!("psql -X -d postgres -c {}\n", shell_word(&create))),
    )
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("       {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_settings_keep_their_elements_apart() {
        let value = |name, value| setting_value(name, value).unwrap();
        assert_eq!(value("search_path", r#""$user", public, "a""b""#), r#"'$user', 'public', 'a"b'"#);
        assert_eq!(value("search_path", r#""""#), "''");
        assert_eq!(value("work_mem", "64MB"), "'64MB'");
        assert_eq!(setting_value("Search_Path", ""), None);
    }

    #[test]
    fn a_list_without_elements_does_not_become_one_of_an_empty_name() {
        let setting = DatabaseSetting { role: None, name: "Search_Path".into(), value: String::new() };
        let statement = setting_statement(&setting, "d");
        assert_eq!(
            statement,
            r#"SELECT pg_catalog.set_config('search_path', '', true); ALTER DATABASE "d" SET "Search_Path" FROM CURRENT"#
        );
        assert_eq!(file_line(&statement), format!("BEGIN; {statement}; COMMIT;"));
    }

    #[test]
    fn parameters_with_a_class_are_quoted_part_by_part() {
        let setting = DatabaseSetting { role: None, name: "app.user".into(), value: "it's".into() };
        assert_eq!(setting_statement(&setting, "d"), r#"ALTER DATABASE "d" SET "app"."user" TO 'it''s'"#);
    }
}
