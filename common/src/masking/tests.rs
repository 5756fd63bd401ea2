use proptest::prelude::*;

use super::*;

#[test]
fn headers_that_let_somebody_in_are_masked() {
    for (said, shown) in [
        ("Authorization: Bearer s3cret", "Authorization: ***"),
        ("curl -H 'authorization: Basic dTpw' https://x/y", "curl -H 'authorization: ***' https://x/y"),
        ("-H \"X-Api-Key:s3cret\" -H 'Cookie: a=b; c=d'", "-H \"X-Api-Key: ***\" -H 'Cookie: ***'"),
        ("authorization: x\nnext line", "authorization: ***\nnext line"),
        ("about authorization:", "about authorization:"),
        ("no authorization is needed", "no authorization is needed"),
    ] {
        assert_eq!(text(said), shown);
    }
}

#[test]
fn what_stands_in_a_word_without_a_name_is_masked() {
    for (said, shown) in [
        ("echo 'h:5432:shop:app:s3cr:et' > ~/.pgpass", "echo 'h:5432:shop:app:***' > ~/.pgpass"),
        ("*:*:*:app:s3cret", "*:*:*:app:***"),
        ("app:s3cret@tcp(db:3306)/shop", "app:***@tcp(db:3306)/shop"),
        ("sqlcmd app:s3c@ret@db/shop", "sqlcmd app:***@db/shop"),
        ("git clone git@github.com:a/b at 12:30:00", "git clone git@github.com:a/b at 12:30:00"),
        ("select x::jsonb@>'{}', a::text", "select x::jsonb@>'{}', a::text"),
        ("file.sql:12:3: syntax error", "file.sql:12:3: syntax error"),
    ] {
        assert_eq!(text(said), shown);
    }
}

#[test]
fn the_password_of_a_url_is_masked_in_any_message() {
    for (text, masked) in [
        ("no snapshot \"postgresql://u:s3cret@h/db\"", "no snapshot \"postgresql://u:***@h/db\""),
        (
            "there is no repository at s3://a:b@c/d and e://f:g@h",
            "there is no repository at s3://a:***@c/d and e://f:***@h",
        ),
        ("nothing at x://h/db?password=s3cret&a=b here", "nothing at x://h/db?password=***&a=b here"),
        ("see https://example.org/a:b", "see https://example.org/a:b"),
        ("no snapshot \"x://u:s3 cr@et@h/db\"", "no snapshot \"x://u:***@h/db\""),
        ("no snapshot \"x://u:s3\"cret@h/db\"", "no snapshot \"x://u:***@h/db\""),
        ("no snapshot \"host=h password=s3cret\"", "no snapshot \"host=h password=***"),
        ("give the password", "give the password"),
    ] {
        assert_eq!(message(text), masked);
    }
}

#[test]
fn passwords_in_words_are_masked() {
    for (word, masked) in [
        ("postgresql://app:s3cret@db/shop", "postgresql://app:***@db/shop"),
        ("--url=postgres://app:p@ss@db/shop", "--url=postgres://app:***@db/shop"),
        ("host=db password=s3cret dbname=x", "host=db password=*** dbname=x"),
        ("host=db password = 's3 \\'cret' dbname=x", "host=db password = *** dbname=x"),
        ("password=s3cret sslpassword=s3cret", "password=*** sslpassword=***"),
        (
            "postgresql://db/shop?password=s3cret&sslmode=require",
            "postgresql://db/shop?password=***&sslmode=require",
        ),
        ("--password=s3cret", "--password=***"),
        ("PGPASSWORD=s3cret", "PGPASSWORD=***"),
        ("AWS_SECRET_ACCESS_KEY=s3cret", "AWS_SECRET_ACCESS_KEY=***"),
        ("-Dspring.datasource.password=s3cret", "-Dspring.datasource.password=***"),
        ("newpass=s3cret", "newpass=***"),
        ("PGPASSFILE=/etc/pgpass", "PGPASSFILE=/etc/pgpass"),
        ("postgresql://db/shop", "postgresql://db/shop"),
        ("postgresql://app@db/shop", "postgresql://app@db/shop"),
        ("https://s3cret@github.com/a/b.git", "https://***@github.com/a/b.git"),
        ("git+https://s3cret@h/a", "git+https://***@h/a"),
        ("https://h/@scope/a", "https://h/@scope/a"),
        ("upgrade", "upgrade"),
        ("password=\"s3 cret\" x", "password=*** x"),
        ("PGPASSWORD=s3\\ cret psql", "PGPASSWORD=*** psql"),
        ("admin_pw=s3cret RAILS_MASTER_KEY=s3cret", "admin_pw=*** RAILS_MASTER_KEY=***"),
        (
            "jdbc:postgresql://h/db?user=u&password=s3cret&ssl=true",
            "jdbc:postgresql://h/db?user=u&password=***&ssl=true",
        ),
        ("AccountKey=s3cret; _auth=s3cret", "AccountKey=*** _auth=***"),
        ("primary_key=id PRIMARY_KEY=id", "primary_key=id PRIMARY_KEY=id"),
        ("STRIPE_KEY=s3cret", "STRIPE_KEY=***"),
        ("a==b", "a==b"),
    ] {
        assert_eq!(connection(word), masked);
    }
}

#[test]
fn what_follows_the_name_of_a_secret_is_masked_in_any_text() {
    for (said, masked) in [
        ("can't run: ALTER ROLE r PASSWORD 's3cret' LOGIN", "can't run: ALTER ROLE r PASSWORD '***' LOGIN"),
        (
            "SQL statement \"ALTER ROLE r PASSWORD E's3\\'cret'\"",
            "SQL statement \"ALTER ROLE r PASSWORD E'***'\"",
        ),
        ("CREATE USER r IDENTIFIED BY 's3''cret'", "CREATE USER r IDENTIFIED BY '***'"),
        ("psql -c \"alter role r password 's3cret'\"", "psql -c \"alter role r password '***'\""),
        ("OPTIONS (user 'a', \"password\" 's3cret')", "OPTIONS (user 'a', \"password\" '***')"),
        ("{\"password\": \"s3cret\", \"a\": 1}", "{\"password\": \"***\", \"a\": 1}"),
        ("EXECUTE 'ALTER ROLE a PASSWORD ''s3cret'' LOGIN'", "EXECUTE 'ALTER ROLE a PASSWORD ''***'' LOGIN'"),
        (
            "DO 'EXECUTE ''ALTER ROLE a PASSWORD ''''s3cret'''' ''; x'",
            "DO 'EXECUTE ''ALTER ROLE a PASSWORD ''''***'''' ''; x'",
        ),
        ("ALTER ROLE a PASSWORD '' LOGIN", "ALTER ROLE a PASSWORD '***' LOGIN"),
        ("f(password => $x$s3cret$x$)", "f(password => '***')"),
        ("password /* for a */ 's3cret", "password /* for a */ '***'"),
        ("SET PASSWORD = PASSWORD('s3cret')", "SET PASSWORD = PASSWORD('***')"),
        ("Key (password)=('s3cret') already exists", "Key (password)=('***') already exists"),
        (
            "password authentication failed for user \"app\"",
            "password authentication failed for user \"app\"",
        ),
        ("the password isn't right", "the password isn't right"),
        (
            "select set_config('app.jwt_secret', 's3cret', false)",
            "select set_config('app.jwt_secret', '***', false)",
        ),
        ("jsonb_build_object('password','s3cret')", "jsonb_build_object('password','***')"),
        ("[\"tool\", \"--password\", \"s3cret\", \"x\"]", "[\"tool\", \"--password\", \"***\", \"x\"]"),
        ("SET my.api_key TO 's3cret'", "SET my.api_key TO '***'"),
        ("echo {\\\"password\\\":\\\"s3cret\\\"}", "echo {\\\"password\\\":\\\"***\""),
        ("select crypt('s3cret', gen_salt('bf')), 'x'", "select crypt('***', gen_salt('***')), 'x'"),
        ("do 'select pgp_sym_encrypt(a, ''s3cret'')'", "do 'select pgp_sym_encrypt(a, ''***'')'"),
        ("hmac ( data , 's3''cret', 'sha256'", "hmac ( data , '***', '***'"),
        ("the password to use", "the password to use"),
        ("curl -H 'PRIVATE-TOKEN: s3cret' x", "curl -H 'PRIVATE-TOKEN: ***' x"),
        ("password:s3cret, a: b", "password:***, a: b"),
        ("there is no password: give one", "there is no password: give one"),
        ("SELECT password::text FROM t WHERE a = 'b'", "SELECT password::text FROM t WHERE a = 'b'"),
        ("set password_encryption = 'md5'", "set password_encryption = 'md5'"),
    ] {
        assert_eq!(after_names(said), masked);
    }
}

proptest! {
    #[test]
    fn masking_never_panics(said in "([a-z ='\"$@:/()\\\\&>-]|password|://|é|/\\*|e'|u&'){0,60}") {
        let _ = (text(&said), connection(&said));
    }

    #[test]
    fn a_secret_is_never_shown(
        secret in "[a-zA-Z0-9]{8,20}",
        before in "([a-z' ]{0,10} )?",
        name in "(PGPASSWORD|password|--password|MY_SECRET|sslpassword|api-token|db.pass)",
        way in 0..8_usize,
    ) {
        let said = match way {
            0 => format!("{before}{name}={secret}"),
            1 => format!("{before}{name}='{secret}'"),
            2 => format!("{before}{name} '{secret}'"),
            3 => format!("{before}{name}: \"{secret}\""),
            4 => format!("{before}postgres://a:{secret}@h/d"),
            5 => format!("{before}f('{name}', '{secret}')"),
            6 => format!("{before}{name}: {secret}"),
            _ => format!("{before}{name} $q${secret}$q$"),
        };
        prop_assert!(!text(&said).contains(&secret), "{}", text(&said));
    }
}
