use common::QualifiedName;

use super::{detect::*, settings::Settings, *};

fn layout(format: Format) -> Layout {
    Layout::of(format)
}

fn named(format: Format, name: &str) -> String {
    match layout(format).file_name(name) {
        FileName::Ignored => "ignored".to_owned(),
        FileName::Wrong(_) => "wrong".to_owned(),
        FileName::Migration { version, description } => format!("{version}|{description}"),
        FileName::AnyOrder { version, description } => format!("any order {version}|{description}"),
        FileName::Foreign { version, .. } => format!("foreign {version}"),
    }
}

#[test]
fn names_are_read_as_each_tool_reads_them() {
    use Format as F;
    for (format, name, expected) in [
        (F::Sqlx, "20240101_add_users.sql", "20240101|add users"),
        (F::Sqlx, "1_a.up.sql", "1|a"),
        (F::Sqlx, "1_a.down.sql", "ignored"),
        (F::Sqlx, "x_a.sql", "wrong"),
        (F::Sqlx, "1_a.SQL", "ignored"),
        (F::Sqlx, "99999999999999999999_a.sql", "wrong"),
        (F::GolangMigrate, "000001_create_a.up.sql", "000001|create a"),
        (F::GolangMigrate, "000001_create_a.down.sql", "ignored"),
        (F::GolangMigrate, "1_a.sql", "ignored"),
        (F::GolangMigrate, "1_a.up.down.sql", "ignored"),
        (F::Dbmate, "20240101_a.sql", "20240101|a"),
        (F::Dbmate, "1.sql", "1|"),
        (F::Dbmate, "a.sql", "ignored"),
        (F::Goose, "00002_b.sql", "00002|b"),
        (F::Goose, "b.sql", "wrong"),
        (F::Goose, "0_b.sql", "wrong"),
        (F::Goose, "00003_c.go", "foreign 00003"),
        (F::Goose, "00003_c_test.go", "ignored"),
        (F::Goose, "main.go", "ignored"),
        (F::Flyway, "V1_2__add_x.sql", "1_2|add x"),
        (F::Flyway, "V1.2.3__x.SQL", "1.2.3|x"),
        (F::Flyway, "V7.sql", "7|"),
        (F::Flyway, "R__views.sql", "R views|views"),
        (F::Flyway, "U1__a.sql", "ignored"),
        (F::Flyway, "v1__a.sql", "ignored"),
        (F::Flyway, "afterMigrate.sql", "ignored"),
        (F::Flyway, "V2__Load.java", "foreign 2"),
        (F::Flyway, "B5__all.sql", "wrong"),
        (F::Refinery, "V1__initial.sql", "1|initial"),
        (F::Refinery, "U3__late.sql", "any order 3|late"),
        (F::Refinery, "V1.2__x.sql", "wrong"),
        (F::Refinery, "V2__code.rs", "foreign 2"),
        (F::Refinery, "V2__with-dash.sql", "ignored"),
        // Only a refinery built with int8-versions takes it.
        (F::Refinery, "V20240101120000__wide.sql", "wrong"),
        (F::Diesel, "2024-01-02-030405_create_posts", "20240102030405|create posts"),
        (F::Diesel, "00000000000000_diesel_initial_setup", "00000000000000|diesel initial setup"),
        (F::Diesel, ".git", "ignored"),
        (F::Prisma, "20240101000000_init", "20240101000000_init|init"),
    ] {
        assert_eq!(named(format, name), expected, "{format} {name}");
    }
}

#[test]
fn flyway_versions_are_ordered_as_numbers_and_recorded_with_dots() {
    let version = |text: &str| layout(Format::Flyway).version(text).expect(text);
    assert!(version("1.2") < version("1.10") && version("2") > version("1.10"));
    assert!(version("99") < Version::repeatable("a") && Version::repeatable("a") < Version::repeatable("b"));
    assert_eq!(flyway::recorded_version(&version("1_2")).as_deref(), Some("1.2"));
    assert_eq!(flyway::recorded_version(&Version::repeatable("a")), None);
}

fn up(format: Format, sql: &str) -> Result<String, String> {
    let found =
        layout(format).sections(sql).map_err(|problem| format!("{}: {}", problem.line, problem.message))?;
    let text: String = found.up.iter().map(|range| &sql[range.clone()]).collect();
    Ok(format!("{}{text}", if found.no_transaction.is_some() { "alone: " } else { "" }))
}

#[test]
fn what_dbmate_would_refuse_and_does_no_harm_is_a_warning() {
    let warnings = |sql: &str| layout(Format::Dbmate).sections(sql).unwrap().warnings;
    assert_eq!(warnings("-- migrate:up\na;\n-- migrate:down\n"), Vec::<String>::new());
    assert!(warnings("-- migrate:up\na;\n")[0].contains("-- migrate:down"));
}

#[test]
fn sections_are_those_of_each_tool_and_what_it_refuses_is_refused_by_line() {
    use Format as F;
    for (format, sql, expected) in [
        (F::Dbmate, "-- why\n-- migrate:up\na;\n-- migrate:down\nb;\n", Ok("a;\n")),
        (F::Dbmate, "--migrate:up transaction:false\na;\n--migrate:down\n", Ok("alone: a;\n")),
        (F::Dbmate, "-- migrate:up\na;\n", Ok("a;\n")),
        (
            F::Dbmate,
            "-- migrate:up\na;\n-- migrate:down\nb;\n-- migrate:up\nc;\n-- migrate:down\n",
            Ok("a;\nc;\n"),
        ),
        (F::Dbmate, "a;\n-- migrate:up\nb;\n", Err("1: ")),
        (F::Dbmate, "-- a\n-- migrate:down\na;\n", Err("2: ")),
        (F::Dbmate, "a;\n", Err("1: ")),
        (F::Goose, "-- +goose Up\na;\n-- +goose Down\nb;\n", Ok("a;\n")),
        (F::Goose, "-- +goose NO TRANSACTION\n-- +goose up\na;\n", Ok("alone: a;\n")),
        (
            F::Goose,
            "-- +goose Up\n-- +goose StatementBegin\na;\n-- +goose StatementEnd\n-- +goose Down\n",
            Ok("-- +goose StatementBegin\na;\n-- +goose StatementEnd\n"),
        ),
        (F::Goose, "-- +goose Up\n-- +goose StatementBegin\na;\n", Err("1: ")),
        (F::Goose, "-- +goose Up\n  -- +goose Down\n", Err("2: ")),
        (F::Goose, "-- +goose Up\n-- +goose ENVSUB ON\na;\n", Err("2: goose would")),
        (F::Goose, "-- +goose Up\na;\nb -- last\n-- +goose Down\n", Err("3: goose wants a semicolon")),
        (F::Goose, "-- +goose Up\na\n  b\n", Err("2: goose wants a semicolon")),
        (F::Goose, "-- +goose Up\na\n  b; -- end\n-- why\n", Ok("a\n  b; -- end\n-- why\n")),
        (F::Goose, "a;\n-- +goose Up\n", Err("1: ")),
        (F::Goose, "a;\n", Err("1: ")),
        (F::Sqlx, "-- no-transaction\na;\n", Ok("alone: -- no-transaction\na;\n")),
        (F::Sqlx, "\n-- no-transaction\na;\n", Ok("\n-- no-transaction\na;\n")),
        (F::Sqlx, "a;\n-- migrate:down\nb;\n", Err("2: `-- migrate:down`")),
        (F::Flyway, "a;\n-- +goose Down\nb;\n", Err("2: ")),
        (F::Prisma, "a;\n", Ok("a;\n")),
    ] {
        match (up(format, sql), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{format}: {sql}"),
            (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{format}: {sql}: {found}"),
            (found, _) => panic!("{format}: {sql}: {found:?}"),
        }
    }
}

#[test]
fn metadata_counts_as_the_tools_count_it() {
    let alone = |format, text: &str| metadata(format, text).no_transaction;
    assert!(alone(Format::Diesel, "run_in_transaction = false"));
    assert!(!alone(Format::Diesel, "run_in_transaction = true"));
    // What diesel makes of a file without the key, and of one that it can't read.
    assert!(alone(Format::Diesel, "# nothing\n"));
    assert!(!alone(Format::Diesel, "run_in_transaction ="));
    assert!(alone(Format::Flyway, "executeInTransaction=false\n"));
    assert!(!alone(Format::Flyway, "executeInTransaction=true\n"));
    assert!(metadata(Format::Flyway, "shouldExecute=${x}==1").problem.is_some());
    assert!(metadata(Format::Flyway, "encoding=ISO-8859-1").problem.is_some());
    assert!(metadata(Format::Flyway, "encoding=UTF-8").problem.is_none());
}

#[test]
fn placeholders_of_flyway_are_found_everywhere() {
    let line = |sql| flyway::placeholder(sql).map(|problem| problem.line);
    assert_eq!(line("SELECT 1;\nINSERT INTO a VALUES ('${name}');"), Some(2));
    assert_eq!(line("-- ${x}\nSELECT 1;"), Some(1));
    assert_eq!(line("SELECT $1, '${', $$ x $$;"), None);
}

fn seen(schema: &str, name: &str, columns: &[&str], on_path: bool) -> Seen {
    Seen {
        table: QualifiedName::new(schema, name),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        on_path,
    }
}

fn signs(files: &[(&str, &str)]) -> Signs {
    let mut signs = Signs::default();
    for (name, text) in files {
        signs.add_file(name, text);
    }
    signs
}

#[test]
fn files_decide_when_there_is_no_history_and_ambiguous_ones_are_refused() {
    let decided = |files: &[(&str, &str)]| {
        decide(None, &[], false, &signs(files), &Settings::default())
            .map(|decision| decision.layout.format)
            .map_err(|error| {
                assert!(error.hint().is_some_and(|hint| hint.contains("--format")), "{error:?}");
                error.message().to_owned()
            })
    };
    assert_eq!(decided(&[("1_a.sql", "")]), Ok(Format::SafeRun));
    assert_eq!(decided(&[]), Ok(Format::SafeRun));
    assert_eq!(decided(&[("1_a.sql", "-- +goose Up\n")]), Ok(Format::Goose));
    assert_eq!(decided(&[("1_a.sql", "--migrate:up\n")]), Ok(Format::Dbmate));
    assert_eq!(decided(&[("V1__a.sql", ""), ("R__b.sql", "")]), Ok(Format::Flyway));
    assert_eq!(decided(&[("V1__a.sql", ""), ("U1__a.sql", ""), ("V1.1__b.sql", "")]), Ok(Format::Flyway));
    assert_eq!(decided(&[("V1__a.sql", ""), ("V2__b.rs", "")]), Ok(Format::Refinery));
    assert_eq!(decided(&[("V1__a.sql", ""), ("U2__b.sql", "")]), Ok(Format::Refinery));
    for ambiguous in [
        &[("V1__a.sql", "")][..],
        &[("1_a.up.sql", ""), ("1_a.down.sql", "")],
        &[("1_a.sql", "-- +goose Up\n"), ("2_a.sql", "-- migrate:up\n")],
        &[("1_a.sql", "-- +goose Up\n"), ("2_a.sql", "SELECT 1;")],
    ] {
        assert!(decided(ambiguous).is_err(), "{ambiguous:?}");
    }
    let mut folders = Signs::default();
    folders.add_folder(true, false);
    assert_eq!(folders.candidates(), [Format::Diesel]);
    folders.add_folder(false, true);
    assert_eq!(folders.candidates(), [Format::Diesel, Format::Prisma]);
}

#[test]
fn the_history_in_the_database_decides_first() {
    let dbmate = seen("public", "schema_migrations", &["version character varying"], true);
    let migrate = seen("public", "schema_migrations", &["version bigint", "dirty boolean"], true);
    let ecto = seen("public", "schema_migrations", &["version bigint", "inserted_at timestamp"], true);
    let sqlx = seen(
        "public",
        "_sqlx_migrations",
        &[
            "version bigint",
            "description text",
            "installed_on x",
            "success boolean",
            "checksum bytea",
            "execution_time x",
        ],
        true,
    );
    let hidden = Seen { on_path: false, ..sqlx.clone() };
    let plain = signs(&[("1_a.sql", "")]);
    let up = signs(&[("1_a.up.sql", "")]);
    let marked = signs(&[("1_a.sql", "-- migrate:up\n")]);
    let decided_for = |files: &Signs, wanted, tables: &[Seen], rails| {
        decide(wanted, tables, rails, files, &Settings::default())
            .map(|decision| decision.layout.format)
            .map_err(|error| format!("{}: {}", error.message(), error.hint().unwrap_or_default()))
    };
    let decided = |wanted, tables: &[Seen], rails| decided_for(&plain, wanted, tables, rails);
    assert_eq!(decided(None, std::slice::from_ref(&sqlx), false), Ok(Format::Sqlx));
    assert_eq!(decided_for(&up, None, std::slice::from_ref(&migrate), false), Ok(Format::GolangMigrate));
    assert_eq!(decided_for(&marked, None, std::slice::from_ref(&dbmate), false), Ok(Format::Dbmate));
    assert_eq!(
        decided_for(&Signs::default(), None, std::slice::from_ref(&dbmate), false),
        Ok(Format::Dbmate)
    );
    // Files that the tool could not have: what stands in the table is compared with them as any other history.
    for table in [&migrate, &dbmate] {
        assert_eq!(decided(None, std::slice::from_ref(table), false), Ok(Format::SafeRun));
    }
    assert_eq!(decided(None, std::slice::from_ref(&dbmate), true), Ok(Format::SafeRun), "Rails' own table");
    assert_eq!(decided(Some(Format::Dbmate), std::slice::from_ref(&dbmate), true), Ok(Format::Dbmate));
    assert_eq!(decided(None, &[ecto], false), Ok(Format::SafeRun));
    assert!(
        decided_for(&up, None, &[sqlx.clone(), migrate.clone()], false)
            .is_err_and(|text| text.contains("--format sqlx"))
    );
    assert_eq!(decided(Some(Format::Sqlx), &[sqlx, migrate], false), Ok(Format::Sqlx));
    // A history that is overlooked would run everything again.
    for wanted in [None, Some(Format::Sqlx)] {
        assert!(
            decided(wanted, std::slice::from_ref(&hidden), false)
                .is_err_and(|text| text.contains("search_path"))
        );
    }
    assert_eq!(decided(Some(Format::SafeRun), &[hidden], false), Ok(Format::SafeRun));
}
