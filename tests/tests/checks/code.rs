//! Views and functions that no longer compile.

use super::*;

/// Only the failures of this check.
fn broken(findings: &[Finding]) -> Vec<&str> {
    let code = findings.iter().filter(|finding| finding.key.check == CheckKind::Code);
    code.map(|finding| finding.detail.as_str()).collect()
}

#[tokio::test]
async fn views_and_functions_that_a_migration_breaks() {
    on_every_server(async |db| {
        db.sql(
            "CREATE SCHEMA app; CREATE TABLE app.t (id int, n int);
            CREATE FUNCTION app.double(i int) RETURNS int LANGUAGE sql AS 'SELECT i * 2';
            CREATE VIEW app.v AS SELECT app.double(id) AS d FROM app.t;
            CREATE FUNCTION app.counts() RETURNS bigint LANGUAGE sql SET search_path = app AS 'SELECT sum(n) FROM t';
            CREATE FUNCTION public.by_path() RETURNS bigint LANGUAGE sql AS 'SELECT sum(id) FROM app.t';
            CREATE FUNCTION app.parsed() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM app.t; END;
            CREATE FUNCTION app.pl() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
            SET check_function_bodies = off;
            CREATE FUNCTION app.old() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM not_there';
            RESET check_function_bodies;
            CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
            CREATE FOREIGN TABLE app.far (id int) SERVER s; CREATE TEMP VIEW mine AS SELECT 1 AS one",
        )
        .await;
        let before = db.checked().await;
        assert_eq!(
            broken(&before.findings),
            ["function app.old() does not compile: relation \"not_there\" does not exist"]
        );
        assert_eq!(compared(&before, &db.checked().await).new, []);
        db.sql(
            "ALTER TABLE app.t RENAME COLUMN n TO m; SET check_function_bodies = off;
            CREATE OR REPLACE FUNCTION app.double(i int) RETURNS int LANGUAGE sql AS 'SELECT i * missing';
            CREATE OR REPLACE FUNCTION app.pl() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETRUN 1; END';
            RESET check_function_bodies",
        )
        .await;
        let comparison = compared(&before, &db.checked().await);
        assert_eq!(
            broken(&comparison.new),
            [
                "function app.counts() does not compile: column \"n\" does not exist",
                "function app.double(i integer) does not compile: column \"missing\" does not exist",
                "function app.pl() does not compile: syntax error at or near \"RETRUN\"",
                "view app.v does not compile: column \"missing\" does not exist",
            ]
        );
        assert_eq!(broken(&comparison.pre_existing).len(), 1);
    })
    .await;
}

/// Names in a body of text resolve when it runs, with the path of whoever runs it.
#[tokio::test]
async fn views_and_functions_are_compiled_with_a_search_path_that_they_will_have() {
    on_every_server(async |db| {
        db.sql(
            "CREATE SCHEMA app; CREATE SCHEMA \"Other one\"; CREATE TABLE public.p (id int); CREATE TABLE app.a (id int);
            CREATE TABLE \"Other one\".o (id int);
            SET check_function_bodies = off;
            CREATE FUNCTION public.in_public() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM p';
            CREATE FUNCTION app.in_app() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM a';
            CREATE FUNCTION public.in_other() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM o';
            RESET check_function_bodies;
            CREATE VIEW public.v AS SELECT public.in_public() AS n",
        )
        .await;
        let broken_functions = [
            "function app.in_app() does not compile: relation \"a\" does not exist",
            "function in_other() does not compile: relation \"o\" does not exist",
        ];
        let before = db.checked().await;
        assert_eq!(broken(&before.findings), broken_functions);
        // A setting counts from the transaction on that makes it.
        let name = db.fresh.name();
        db.sql(&format!("BEGIN; ALTER DATABASE \"{name}\" SET search_path = app, public")).await;
        assert_eq!(broken(&db.checked().await.findings), broken_functions[1..]);
        db.sql(&format!(
            "CREATE ROLE \"{name}\" IN ROLE pg_monitor; ALTER ROLE \"{name}\" SET search_path = 'Other one';
            SET check_function_bodies = off;
            CREATE VIEW app.w AS SELECT app.in_app() AS n, public.in_other() AS o;
            DROP TABLE public.p"
        ))
        .await;
        let after = db.checked().await;
        assert_eq!(
            broken(&compared(&before, &after).new),
            [
                "function in_public() does not compile: relation \"p\" does not exist",
                // No path has both.
                "view app.w does not compile: relation \"a\" does not exist",
                "view v does not compile: relation \"p\" does not exist",
            ]
        );
        db.sql("ROLLBACK").await;
    })
    .await;
}

/// Since 19 a list can be set to nothing at all, which the catalog prints as nothing.
#[tokio::test]
async fn an_empty_search_path_of_a_function_ends_no_check() {
    on_every_server(async |db| {
        let empty: &[&str] = if db.version >= 19 { &["''", "NULL"] } else { &["''"] };
        for (number, path) in empty.iter().enumerate() {
            db.sql(&format!(
                "CREATE FUNCTION f{number}() RETURNS int LANGUAGE sql SET search_path = {path} AS 'SELECT 1';
                CREATE FUNCTION g{number}() RETURNS int LANGUAGE plpgsql SET search_path = {path} AS 'BEGIN RETURN 1; END'"
            ))
            .await;
        }
        let results = db.checked().await;
        assert_eq!((broken(&results.findings), results.skipped), (Vec::new(), Vec::new()));
    })
    .await;
}

/// A foreign table's server must not be asked: the one below does not exist.
#[tokio::test]
async fn a_view_on_a_foreign_table_is_planned_and_no_other_server_is_asked() {
    for major in tests::cluster::majors() {
        let fresh = Cluster::shared(major).fresh_database("checks");
        let client = connect(&fresh.url().parse().unwrap()).await;
        let made = client
            .batch_execute(
                "CREATE EXTENSION postgres_fdw; CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw
                   OPTIONS (host '/nowhere', dbname 'none');
                CREATE USER MAPPING FOR CURRENT_USER SERVER s;
                CREATE FOREIGN TABLE far (id int) SERVER s; CREATE VIEW over AS SELECT * FROM far;
                CREATE VIEW above AS SELECT count(*) FROM over",
            )
            .await;
        made.unwrap_or_else(|error| panic!("PostgreSQL {major}: {error:?}"));
        let options = Options { only: vec![CheckKind::Code], ..Options::default() };
        let results = run(&client, &options).await.unwrap();
        assert_eq!((details(&results.findings), results.skipped), (Vec::new(), Vec::new()));
    }
}

/// plpgsql_check comes from the distribution: where it is, it sees what PostgreSQL's own validator does not.
#[tokio::test]
async fn plpgsql_check_is_asked_where_it_is_installed() {
    let fresh = Cluster::shared(15).fresh_database("checks");
    let client = connect(&fresh.url().parse().unwrap()).await;
    if let Err(error) =
        client.batch_execute("CREATE SCHEMA \"odd s\"; CREATE EXTENSION plpgsql_check SCHEMA \"odd s\"").await
    {
        // Undefined file, or a feature that is not supported, by the minor version.
        let code = error.code().map(|code| code.code().to_owned());
        assert!(["58P01", "0A000"].map(|code| Some(code.to_owned())).contains(&code), "{error:?}");
        eprintln!("plpgsql_check is not on this machine");
        return;
    }
    client
        .batch_execute(
            "CREATE TABLE t (id int, n int);
            CREATE FUNCTION total() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(n) FROM t); END';
            CREATE FUNCTION trig() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := 1; RETURN NEW; END';
            CREATE TRIGGER on_t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION trig()",
        )
        .await
        .unwrap();
    let options = Options { only: vec![CheckKind::Code], ..Options::default() };
    let before = run(&client, &options).await.unwrap();
    assert_eq!((details(&before.findings), &before.skipped), (Vec::new(), &Vec::new()));
    client.batch_execute("ALTER TABLE t RENAME COLUMN n TO m").await.unwrap();
    let after = run(&client, &options).await.unwrap();
    assert_eq!(
        details(&compared(&before, &after).new),
        [
            "function total() does not compile: line 1: column \"n\" does not exist",
            "function trig() does not compile: line 1: record \"new\" has no field \"n\"",
        ]
    );
}
