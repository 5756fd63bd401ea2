//! Statements that run as the owner of an object: who they are, and what they can't do.

use common::postgres::as_owner::{self, AsOwner, OWN_PATH, Rows};
use tokio_postgres::SimpleQueryMessage;

use super::*;

/// The first column of the rows.
async fn column(client: &Client, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

impl Database {
    async fn oid_of(&self, role: &Role) -> AsOwner {
        let sql = format!("SELECT oid FROM pg_roles WHERE rolname = '{}'", role.name);
        AsOwner::of(column(&self.client, &sql).await.unwrap()[0].parse().unwrap())
    }

    /// Rows of a query as the role, by a function that is made for this one call.
    async fn as_role(&self, owner: AsOwner, sql: &str, rows: Rows) -> Result<Vec<String>, String> {
        self.sql(&format!("BEGIN; {}; SET LOCAL transaction_read_only = on", owner.create_sql())).await;
        let answer = column(&self.client, &owner.query_sql(sql, OWN_PATH, rows)).await;
        self.sql("ROLLBACK").await;
        answer.map_err(|error| error.as_db_error().unwrap().message().to_owned())
    }

    /// As a session of the role itself, which can't become anybody else.
    async fn sql_as(&self, role: &Role, sql: &str) {
        let mut config = self.config.clone();
        config.user(&role.name);
        if let Err(error) = connect(&config).await.batch_execute(sql).await {
            panic!("{error:?} in {sql}");
        }
    }

    async fn drop_role(&self, role: &Role) {
        self.sql(&format!("DROP OWNED BY {0} CASCADE; DROP ROLE {0}", role.quoted())).await;
    }
}

/// A function that tries to be somebody else in every way that SQL has, and says who it is then, or what let it. It gives true
/// where it is `role`, and raises else.
fn planted(role: &Role) -> String {
    let attempts = [
        "RESET ROLE",
        "SET ROLE NONE",
        "SET ROLE postgres",
        "SET LOCAL ROLE postgres",
        "RESET SESSION AUTHORIZATION",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SET SESSION AUTHORIZATION postgres",
        "SELECT set_config(''role'', ''postgres'', false)",
        "SELECT set_config(''session_authorization'', ''postgres'', false)",
        "DISCARD ALL",
        "RESET ALL",
        "COMMIT",
        "ROLLBACK",
        "ROLLBACK TO SAVEPOINT s",
    ];
    let each: String = attempts
        .iter()
        .map(|attempt| format!("BEGIN EXECUTE '{attempt}'; EXCEPTION WHEN OTHERS THEN NULL; END; {WHO}\n"))
        .collect();
    format!(
        "CREATE FUNCTION planted.innocent(i int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
        BEGIN {WHO} {each} RETURN true; END $$;
        ALTER FUNCTION planted.innocent(int) OWNER TO {0};",
        role.quoted()
    )
    .replace("ROLE_NAME", &role.name)
}

const WHO: &str = "IF current_user <> 'ROLE_NAME' THEN RAISE EXCEPTION 'it runs as %', current_user; END IF;";

#[tokio::test]
async fn code_of_an_owner_stays_the_owner_when_a_question_is_planned_run_and_printed() {
    on_every_server(async |db| {
        let role = db.role("owner").await;
        let owner = db.oid_of(&role).await;
        db.sql(&format!("CREATE SCHEMA planted AUTHORIZATION {}", role.quoted())).await;
        db.sql(&planted(&role)).await;
        db.sql_as(
            &role,
            "CREATE TABLE planted.t (i int CONSTRAINT c CHECK (planted.innocent(i)) NO INHERIT);
            INSERT INTO planted.t SELECT generate_series(1, 3);
            CREATE INDEX ON planted.t (i) WHERE planted.innocent(1); CREATE STATISTICS planted.s ON (planted.innocent(i)), i FROM planted.t;
            CREATE VIEW planted.v AS SELECT i FROM planted.t WHERE planted.innocent(2)",
        )
        .await;
        // The control: it does run, and sees who asks.
        let error = column(&db.client, "SELECT i FROM planted.t WHERE planted.innocent(i)").await.unwrap_err();
        assert_eq!(error.as_db_error().unwrap().message(), "it runs as postgres");
        for rows in [Rows::InOrder, Rows::InAnyOrder] {
            for sql in [
                "SELECT i FROM planted.t WHERE planted.innocent(i) AND i > 0",
                "SELECT i FROM planted.v",
                "SELECT i FROM ONLY planted.t WHERE planted.innocent(1)",
            ] {
                assert_eq!(db.as_role(owner, sql, rows).await.unwrap(), ["(1)", "(2)", "(3)"], "{sql}");
            }
        }
        let explained = db.as_role(owner, "EXPLAIN (COSTS OFF) SELECT FROM planted.v", Rows::InOrder).await;
        assert!(explained.unwrap()[0].contains("Scan"));
        let write = db.as_role(owner, "DELETE FROM planted.t RETURNING i", Rows::InOrder).await;
        assert_eq!(write.unwrap_err(), "cannot execute DELETE in a read-only transaction");
        db.drop_role(&role).await;
    })
    .await;
}

#[tokio::test]
async fn values_are_what_the_session_itself_would_get() {
    on_every_server(async |db| {
        let role = db.role("owner").await;
        let owner = db.oid_of(&role).await;
        let sql = "SELECT i AS safe_run_row, CASE WHEN i > 1 THEN 'a \"b\", \\ (c)' END, ARRAY['x,y', NULL, ''], '', i > 1, 1.50::numeric
                   FROM generate_series(1, 3) i ORDER BY i DESC";
        let messages = db.client.simple_query(sql).await.unwrap();
        let mut plain: Vec<Vec<Option<String>>> = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                plain.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect());
            }
        }
        for rows in [Rows::InOrder, Rows::InAnyOrder] {
            let answer = db.as_role(owner, sql, rows).await.unwrap();
            let answer: Vec<_> = answer.iter().map(|row| as_owner::fields(row).unwrap()).collect();
            assert_eq!(answer, plain);
        }
        db.drop_role(&role).await;
    })
    .await;
}

#[tokio::test]
async fn one_owners_code_can_not_call_the_function_of_another() {
    on_every_server(async |db| {
        let (one, other) = (db.role("one").await, db.role("other").await);
        let (of_one, of_other) = (db.oid_of(&one).await, db.oid_of(&other).await);
        db.sql(&format!("ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO {}", other.quoted())).await;
        db.sql(&format!("BEGIN; {}; {}", of_one.create_sql(), of_other.create_sql())).await;
        let through = of_one.query_sql("SELECT 1", OWN_PATH, Rows::InOrder);
        let call = of_other.query_sql(&through, OWN_PATH, Rows::InOrder);
        let error = column(&db.client, &call).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501");
        db.sql("ROLLBACK").await;
        db.sql(&format!("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM {}", other.quoted()))
            .await;
        db.drop_role(&one).await;
        db.drop_role(&other).await;
    })
    .await;
}

#[tokio::test]
async fn a_member_asks_as_the_owner_and_who_is_none_is_refused() {
    on_every_server(async |db| {
        let (owner_role, member, stranger) =
            (db.role("owner").await, db.role("member").await, db.role("stranger").await);
        let owner = db.oid_of(&owner_role).await;
        db.sql(&format!("GRANT {} TO {}", owner_role.quoted(), member.quoted())).await;
        let who = owner.query_sql("SELECT current_user, session_user", OWN_PATH, Rows::InOrder);
        for role in [&member, &stranger] {
            let mut config = db.config.clone();
            config.user(&role.name);
            let client = connect(&config).await;
            client.batch_execute("BEGIN; SAVEPOINT s").await.unwrap();
            let made = client.batch_execute(&owner.create_sql()).await;
            if role.name == stranger.name {
                assert_eq!(made.unwrap_err().code().unwrap().code(), "42501");
                client.batch_execute("ROLLBACK TO s").await.unwrap();
                client
                    .batch_execute(&as_owner::create_for_all_sql("SELECT oid FROM pg_catalog.pg_roles"))
                    .await
                    .unwrap();
                assert!(!column(&client, as_owner::MADE).await.unwrap().contains(&owner.owner().to_string()));
            } else {
                made.unwrap();
                assert_eq!(column(&client, as_owner::MADE).await.unwrap(), [owner.owner().to_string()]);
                assert_eq!(
                    column(&client, "SELECT current_user").await.unwrap(),
                    std::slice::from_ref(&role.name)
                );
                let expected = format!("({},{})", owner_role.name, member.name);
                assert_eq!(column(&client, &who).await.unwrap(), [expected]);
            }
        }
        db.drop_role(&member).await;
        db.drop_role(&stranger).await;
        db.drop_role(&owner_role).await;
    })
    .await;
}

#[tokio::test]
async fn nothing_that_the_code_leaves_in_the_session_is_used_by_it_later() {
    on_every_server(async |db| {
        let role = db.role("owner").await;
        let owner = db.oid_of(&role).await;
        db.sql(&format!("CREATE SCHEMA planted AUTHORIZATION {}", role.quoted())).await;
        db.sql(&format!(
            "SET ROLE {}; CREATE FUNCTION planted.leaves() RETURNS int LANGUAGE plpgsql AS $$
            BEGIN
              DEALLOCATE ALL; EXECUTE 'PREPARE s0 AS SELECT 666'; EXECUTE 'PREPARE s1 AS SELECT 666';
              SET search_path = planted; SET statement_timeout = 600000; SET client_min_messages = debug5; LISTEN planted;
              CREATE TEMP TABLE pg_class (i int); EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1';
              ALTER FUNCTION {}(text, text, text) SECURITY INVOKER;
              RETURN 1;
            END $$; RESET ROLE",
            role.quoted(),
            owner.function()
        ))
        .await;
        let prepared = db.client.prepare("SELECT 1").await.unwrap();
        let before = column(&db.client, "SELECT statement_timestamp()").await.unwrap().remove(0);
        // Such a transaction may write: the worst case.
        let call = owner.query_sql("SELECT planted.leaves()", OWN_PATH, Rows::InOrder);
        db.sql("BEGIN").await;
        for _ in 0..2 {
            db.sql("SAVEPOINT a").await;
            let answer = column(&db.client, &format!("{}; {call}", owner.create_sql())).await.unwrap();
            assert_eq!(answer, ["(1)"]);
            db.sql("ROLLBACK TO a").await;
        }
        db.sql(&as_owner::forget_prepared_sql(&format!("'{before}'::timestamptz"))).await;
        let state = "SELECT current_setting('search_path'), current_setting('statement_timeout'),
            (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors WHERE name = 'c'),
            (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),
            (SELECT count(*) FROM pg_proc WHERE proname LIKE 'safe\\_run\\_as%')";
        let messages = db.client.simple_query(state).await.unwrap();
        let SimpleQueryMessage::Row(row) = &messages[1] else { panic!("no row") };
        assert_eq!(
            (0..6).map(|i| row.get(i).unwrap()).collect::<Vec<_>>(),
            ["\"$user\", public", "0", "0", "0", "0", "0"]
        );
        // What was ours is gone, and nothing else stands in its place.
        let gone = db.client.query(&prepared, &[]).await.unwrap_err();
        assert_eq!(gone.code().unwrap().code(), "26000");
        db.sql("ROLLBACK").await;
        db.drop_role(&role).await;
    })
    .await;
}
