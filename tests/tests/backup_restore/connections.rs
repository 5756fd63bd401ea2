//! Connections to real servers: every sslmode, every way to fail, and what a session pins.
//!
//! The cluster here has what no other test needs: certificates of its own, a pg_hba.conf with one database per rule, and
//! a role per way to log in. `openssl` makes the certificates.

// The helpers of tests are tests too; clippy.toml covers only the functions marked as such.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use common::{
    Error, ErrorKind,
    postgres::connect::{
        ConnectionSettings, Environment, Notice, SessionProfile, SslMode, VARIABLES_TO_CLEAR, refuse_pooler,
    },
};

const HBA: &str = "\
local all peeruser peer
local all all trust
hostssl certdb all 127.0.0.1/32 cert
hostssl ssldb all 127.0.0.1/32 scram-sha-256
hostnossl plaindb all 127.0.0.1/32 scram-sha-256
host ssldb,plaindb,nodb all 127.0.0.1/32 reject
host all md5user 127.0.0.1/32 md5
host all clearuser 127.0.0.1/32 password
host all all 127.0.0.1/32 scram-sha-256
";

const SQL: &str = "\
create role ann login password 'hunter2 /@%';
create role certuser login;
create role peeruser login;
create role clearuser login password 'hunter2';
set password_encryption = md5;
create role md5user login password 'hunter2';
create role limited login connection limit 0;
create role barred login;
create database certdb;
create database ssldb;
create database plaindb;
create database nodb;
create database closed allow_connections false;
create database private;
revoke connect on database private from public;
alter role ann set search_path = foo;
alter role ann set statement_timeout = '1h';
alter database ssldb set \"TimeZone\" = 'Asia/Tokyo';
alter database ssldb set idle_in_transaction_session_timeout = '1h';
";

/// `ann`'s password in a URL.
const ANN: &str = "ann:hunter2%20%2F%40%25";

/// A server with TLS, stopped when the test process ends.
struct Cluster {
    directory: PathBuf,
    port: u16,
}

impl Cluster {
    fn get() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(|| {
            let directory = tempfile::Builder::new().prefix("connections-").tempdir().unwrap().keep();
            Self::start(&directory, "server", true)
        })
    }

    /// A fresh server with the certificate `name`, or without TLS.
    fn start(directory: &Path, name: &str, tls: bool) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        make_certificates(directory);
        let cluster = Self { directory: directory.to_owned(), port };
        let data = directory.join("data");
        let shown = directory.display();
        fs::write(directory.join("pg_hba.conf"), HBA).unwrap();
        if is_root() {
            run(Command::new("chown").args(["-R", "postgres"]).arg(directory));
        }
        run(as_server(&program("initdb")).args(["-A", "trust", "-U", "postgres", "-N", "-D"]).arg(&data));
        let mut configuration =
            fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        write!(
            configuration,
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{shown}'\nfsync = off\n\
             hba_file = '{shown}/pg_hba.conf'\nssl = {tls}\nssl_cert_file = '{shown}/{name}.crt'\n\
             ssl_key_file = '{shown}/{name}.key'\nssl_ca_file = '{shown}/ca.crt'\nmax_connections = 40\n"
        )
        .unwrap();
        cluster.control("start");
        // The parent ends without a destructor for statics: this shell ends with it and stops the server.
        let watcher = format!(
            "while kill -0 {} 2>/dev/null; do sleep 0.2; done; {}'{}' -D '{}' -m immediate stop; rm -rf '{shown}'",
            std::process::id(),
            if is_root() { "runuser -u postgres -- " } else { "" },
            program("pg_ctl").display(),
            data.display(),
        );
        let mut watcher_command = Command::new("sh");
        watcher_command
            .args(["-c", &watcher])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        drop(watcher_command.spawn().unwrap());
        run(Command::new(program("psql"))
            .args(["-XqU", "postgres", "-h"])
            .arg(directory)
            .args(["-p", &port.to_string()])
            .args(SQL.lines().flat_map(|line| ["-c", line]).collect::<Vec<_>>()));
        cluster
    }

    fn control(&self, action: &str) {
        run(as_server(&program("pg_ctl"))
            .args(["-w", "-m", "immediate", "-D"])
            .arg(self.directory.join("data"))
            .arg("-l")
            .arg(self.directory.join("log"))
            .arg(action));
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// `who@localhost/rest` over TCP, without anything of the surroundings.
    fn tcp(&self, who: &str, rest: &str) -> ConnectionSettings {
        settings(&format!("postgresql://{who}@localhost:{}/{rest}", self.port))
    }

    fn socket(&self, who: &str, database: &str) -> ConnectionSettings {
        settings(&format!(
            "postgresql://{who}@/{database}?host={}&port={}",
            self.directory.display(),
            self.port
        ))
    }
}

fn settings(value: &str) -> ConnectionSettings {
    ConnectionSettings::resolve(Some(value), &Environment::from_pairs("nobody", [("X", "")])).unwrap()
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}

fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("SAFE_RUN_TEST_PG15")
        .map_or_else(|| PathBuf::from("/usr/lib/postgresql/15/bin"), PathBuf::from);
    folder.join(name)
}

/// PostgreSQL refuses to run as root.
fn as_server(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    command
}

fn run(command: &mut Command) {
    // pg_ctl's server keeps inherited pipes open for ever: no output is captured through a pipe.
    let log = tempfile::NamedTempFile::new().unwrap();
    let status = command
        .stdin(Stdio::null())
        .stdout(log.reopen().unwrap())
        .stderr(log.reopen().unwrap())
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {}", fs::read_to_string(log.path()).unwrap_or_default());
}

fn make_certificates(directory: &Path) {
    let script = r#"
        set -e
        issue() { name=$1; shift; openssl req -newkey rsa:2048 -nodes -keyout $name.key -out $name.csr -subj "/CN=$1"
            shift; openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -set_serial $$ -days 9 -out $name.crt "$@"; }
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 9 -subj /CN=authority
        openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.crt -days 9 -subj /CN=other
        openssl req -x509 -newkey rsa:2048 -nodes -keyout self.key -out self.crt -days 9 -subj /CN=localhost -addext subjectAltName=DNS:localhost
        printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > localhost.ext
        printf 'subjectAltName=DNS:db.example.com\nbasicConstraints=CA:FALSE\n' > other.ext
        printf 'basicConstraints=CA:FALSE\n' > cn.ext
        issue server localhost -extfile localhost.ext
        issue elsewhere db.example.com -extfile other.ext
        issue common_name localhost -extfile cn.ext
        issue version1 localhost
        issue certuser certuser
        chmod 600 *.key
    "#;
    run(Command::new("bash").args(["-c", script]).current_dir(directory));
}

async fn refusal(settings: &ConnectionSettings) -> Error {
    match settings.connect().await {
        Ok(session) => panic!("connected: {session:?}"),
        Err(error) => {
            let shown = format!("{error:?} {:?} {settings:?}", error.hint());
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(
                error.hint().is_some_and(|hint| hint.ends_with('.') || hint.contains(' ')),
                "no hint: {error}"
            );
            if std::env::var_os("SHOW").is_some() {
                println!("--- {error}\n    {}", error.hint().unwrap_or_default());
            }
            error
        }
    }
}

fn assert_refused(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.message().contains(part), "{part:?} is not in: {error}");
    }
}

async fn uses_tls(settings: &ConnectionSettings) -> bool {
    let session =
        settings.connect().await.unwrap_or_else(|error| panic!("{settings:?}: {error} {:?}", error.hint()));
    let row =
        session.query_one("select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[]).await.unwrap();
    let tls: bool = row.get(0);
    assert_eq!(session.uses_tls(), tls);
    session.close().await.unwrap();
    tls
}

#[tokio::test]
async fn every_sslmode_means_what_libpq_says() {
    let cluster = Cluster::get();
    let to = |database: &str, query: &str| cluster.tcp(ANN, &format!("{database}?{query}"));
    let ca = format!("sslrootcert={}", cluster.file("ca.crt"));
    let other = format!("sslrootcert={}", cluster.file("other.crt"));

    assert!(!uses_tls(&to("postgres", "sslmode=disable")).await);
    assert!(!uses_tls(&to("postgres", "sslmode=allow")).await);
    assert!(uses_tls(&to("ssldb", "sslmode=allow")).await, "pg_hba.conf insists");
    assert!(uses_tls(&to("postgres", "sslmode=prefer")).await);
    assert!(!uses_tls(&to("plaindb", "sslmode=prefer")).await, "pg_hba.conf refuses TLS");
    assert!(uses_tls(&to("postgres", "sslmode=prefer&channel_binding=require")).await, "SCRAM-SHA-256-PLUS");
    assert!(uses_tls(&to("postgres", "sslmode=require")).await);
    assert!(uses_tls(&to("postgres", &format!("sslmode=require&{ca}"))).await);
    assert!(uses_tls(&to("postgres", &format!("sslmode=verify-ca&{ca}"))).await);
    assert!(uses_tls(&to("postgres", &format!("sslmode=verify-full&{ca}"))).await);
    assert!(
        uses_tls(&to("postgres", &format!("sslmode=verify-full&{ca}&ssl_max_protocol_version=TLSv1.2")))
            .await
    );

    for mode in ["require", "verify-ca", "verify-full"] {
        let error = refusal(&to("postgres", &format!("sslmode={mode}&{other}"))).await;
        assert_refused(
            &error,
            ErrorKind::Refused,
            &["none of the authorities", mode, "other.crt", "localhost:"],
        );
    }
    let by_address = settings(&format!("postgresql://{ANN}@127.0.0.1:{}/postgres?{ca}", cluster.port));
    let by_address =
        |mode: &str| settings(&format!("{}&sslmode={mode}", by_address.url_for_child().expose()));
    assert!(uses_tls(&by_address("verify-ca")).await, "verify-ca ignores the name");
    let error = refusal(&by_address("verify-full")).await;
    assert_refused(&error, ErrorKind::Refused, &["127.0.0.1", "verify-full"]);
    assert!(error.hint().is_some_and(|hint| hint.contains("verify-ca")));
    assert!(uses_tls(&settings(&format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=ann password='hunter2 /@%' dbname=postgres sslmode=verify-full {}",
        cluster.port,
        ca
    ))).await, "the name is verified, the address dialled");
    let error = refusal(&to("postgres", "sslmode=verify-full&sslrootcert=/nowhere/root.crt")).await;
    assert_refused(&error, ErrorKind::Refused, &["/nowhere/root.crt", "verify-full"]);
    let error = refusal(&to("postgres", "sslmode=verify-full")).await;
    assert_refused(&error, ErrorKind::Refused, &["root.crt", "verify-full"]);
    let error = refusal(&to("plaindb", "sslmode=require")).await;
    assert_refused(&error, ErrorKind::Refused, &["plaindb", "ann"]);
    let error = refusal(&to("nodb", "")).await;
    assert_refused(&error, ErrorKind::Refused, &["nodb", "ann"]);
    assert_refused(
        &refusal(&to("postgres", "sslmode=disable&channel_binding=require")).await,
        ErrorKind::Refused,
        &["channel binding"],
    );
    assert!(!uses_tls(&cluster.socket("ann", "postgres")).await, "sockets never use TLS");
}

#[tokio::test]
async fn certificates_of_every_age_are_accepted_or_explained() {
    let directory = tempfile::tempdir().unwrap();
    if is_root() {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let cluster = Cluster::start(directory.path(), "self", true);
    let to = |mode: SslMode, roots: &str| {
        cluster.tcp(ANN, &format!("postgres?sslmode={}&sslrootcert={}", mode.as_str(), cluster.file(roots)))
    };
    assert!(uses_tls(&to(SslMode::VerifyCa, "self.crt")).await, "self-signed and listed");
    assert!(uses_tls(&to(SslMode::VerifyFull, "self.crt")).await);
    let error = refusal(&to(SslMode::VerifyCa, "ca.crt")).await;
    assert_refused(&error, ErrorKind::Refused, &["self-signed", "ca.crt"]);
    let error = refusal(&settings(&format!(
        "postgresql://{ANN}@127.0.0.1:{}/postgres?sslmode=verify-full&sslrootcert={}",
        cluster.port,
        cluster.file("self.crt")
    )))
    .await;
    assert_refused(&error, ErrorKind::Refused, &["127.0.0.1", "not valid for name"]);

    for (name, mode, part) in [
        ("version1", SslMode::VerifyCa, "X.509 version 1"),
        ("common_name", SslMode::VerifyFull, "not valid for name"),
        ("elsewhere", SslMode::VerifyFull, "db.example.com"),
    ] {
        fs::write(
            cluster.directory.join("data/postgresql.auto.conf"),
            format!(
                "ssl_cert_file = '{}'\nssl_key_file = '{}'\n",
                cluster.file(&format!("{name}.crt")),
                cluster.file(&format!("{name}.key"))
            ),
        )
        .unwrap();
        cluster.control("reload");
        // The postmaster takes the new file a moment after the signal.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let outcome = to(mode, "ca.crt").connect().await;
            if outcome.as_ref().is_err_and(|error| error.message().contains(part))
                || Instant::now() > deadline
            {
                let error = refusal(&to(mode, "ca.crt")).await;
                assert_refused(&error, ErrorKind::Refused, &[part, "ca.crt"]);
                assert!(
                    error
                        .hint()
                        .is_some_and(|hint| hint.contains("subjectAltName") || hint.contains("name that")),
                    "{error:?}"
                );
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(
            uses_tls(&cluster.tcp(ANN, "postgres?sslmode=require")).await,
            "{name} is good enough to encrypt"
        );
        if name == "common_name" {
            assert!(uses_tls(&to(SslMode::VerifyCa, "ca.crt")).await);
        }
    }

    // Without TLS on the server.
    fs::write(cluster.directory.join("data/postgresql.auto.conf"), "ssl = off\n").unwrap();
    cluster.control("restart");
    assert!(!uses_tls(&cluster.tcp(ANN, "postgres?sslmode=prefer")).await);
    let error = refusal(&cluster.tcp(ANN, "postgres?sslmode=require")).await;
    assert_refused(&error, ErrorKind::Refused, &["does not support TLS", "sslmode=require"]);
    cluster.control("stop");
    let waiting = cluster.tcp(ANN, "postgres");
    assert_refused(&refusal(&waiting).await, ErrorKind::Busy, &["refuses connections", "localhost:"]);
    assert_refused(
        &refusal(&cluster.socket("ann", "postgres")).await,
        ErrorKind::Busy,
        &["no server socket"],
    );
    let mut attempts = 0;
    let error = waiting.connect_waiting(Duration::from_millis(700), |_| attempts += 1).await.unwrap_err();
    assert_refused(&error, ErrorKind::Busy, &["gave up after waiting", "refuses connections"]);
    assert!(attempts > 0);
    let starter = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        cluster.control("start");
        cluster
    });
    waiting.connect_waiting(Duration::from_secs(60), |_| ()).await.unwrap();
    let cluster = starter.join().unwrap();
    cluster.control("stop");
}

#[tokio::test]
async fn client_certificates_log_in_and_exposed_keys_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::get();
    let own = tempfile::tempdir().unwrap();
    for name in ["certuser.key", "certuser.crt"] {
        fs::copy(cluster.file(name), own.path().join(name)).unwrap();
    }
    let key = own.path().join("certuser.key");
    let url = |crt: &str| {
        cluster.tcp(
            "certuser",
            &format!(
                "certdb?sslmode=require&sslcert={}/{crt}&sslkey={}",
                own.path().display(),
                key.display()
            ),
        )
    };
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(uses_tls(&url("certuser.crt")).await);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_refused(
        &refusal(&url("certuser.crt")).await,
        ErrorKind::Refused,
        &["certuser.key", "open to others"],
    );
    assert_refused(&refusal(&url("none.crt")).await, ErrorKind::Refused, &["none.crt"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy(cluster.file("other.crt"), own.path().join("other.crt")).unwrap();
    assert_refused(&refusal(&url("other.crt")).await, ErrorKind::Refused, &["other.crt"]);
    let error = refusal(&cluster.tcp("certuser", "certdb?sslmode=require")).await;
    assert_refused(&error, ErrorKind::Refused, &["certdb", "certuser"]);
}

#[tokio::test]
async fn each_refusal_names_server_database_and_user_and_has_its_kind() {
    let cluster = Cluster::get();
    let place = format!("localhost:{}", cluster.port);
    let refused = ErrorKind::Refused;
    assert_refused(
        &refusal(&cluster.tcp("ann:hunter2wrong", "postgres")).await,
        refused,
        &["wrong password", "ann", "postgres", &place],
    );
    assert_refused(
        &refusal(&cluster.tcp("md5user:hunter2wrong", "postgres")).await,
        refused,
        &["wrong password", "md5user"],
    );
    assert_refused(
        &refusal(&cluster.tcp("ann", "postgres")).await,
        refused,
        &["asks for the password", "ann", &place],
    );
    assert_refused(
        &refusal(&cluster.tcp("clearuser", "postgres")).await,
        refused,
        &["asks for the password"],
    );
    assert_refused(
        &refusal(&cluster.tcp(ANN, "missing")).await,
        refused,
        &["\"missing\" does not exist", &place],
    );
    assert_refused(&refusal(&cluster.tcp(ANN, "closed")).await, refused, &["closed", &place]);
    assert_refused(&refusal(&cluster.tcp(ANN, "private")).await, refused, &["private", "ann"]);
    assert_refused(&refusal(&cluster.socket("peeruser", "postgres")).await, refused, &["peeruser", "Peer"]);
    assert_refused(&refusal(&cluster.socket("stranger", "postgres")).await, refused, &["stranger"]);
    assert_refused(&refusal(&cluster.socket("limited", "postgres")).await, ErrorKind::Busy, &["limited"]);
    assert_refused(
        &refusal(&cluster.socket("ann", "postgres").with_option("no_such_setting", "1")).await,
        ErrorKind::Usage,
        &["no_such_setting"],
    );
    assert_refused(
        &refusal(&settings("postgresql://ann@no-such-host.invalid/shop")).await,
        ErrorKind::Busy,
        &["no-such-host.invalid", "shop"],
    );
    assert_refused(
        &refusal(&settings("postgresql:///shop?host=/nowhere")).await,
        ErrorKind::Busy,
        &["/nowhere", ".s.PGSQL.5432"],
    );

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let started = Instant::now();
    let error =
        refusal(&settings(&format!("postgresql://ann@127.0.0.1:{port}/shop?connect_timeout=2"))).await;
    assert_refused(&error, ErrorKind::Busy, &["did not answer within 2 s", "127.0.0.1:"]);
    assert!(started.elapsed() < Duration::from_secs(20));

    let mut attempts = 0;
    let error = cluster
        .tcp("ann:hunter2wrong", "postgres")
        .connect_waiting(Duration::from_secs(60), |_| attempts += 1)
        .await;
    assert_refused(&error.unwrap_err(), refused, &["wrong password"]);
    assert_eq!(attempts, 0, "waiting does not help against a wrong password");
}

#[tokio::test]
async fn passwords_of_every_kind_log_in_and_the_childs_url_and_variables_do_too() {
    let cluster = Cluster::get();
    for who in [ANN, "md5user:hunter2", "clearuser:hunter2"] {
        let settings = cluster.tcp(who, "postgres?sslmode=require").with_application_name("safe-run/7 x");
        settings.connect().await.unwrap().close().await.unwrap();
        let mut by_url = Command::new(program("psql"));
        let mut by_variables = Command::new(program("psql"));
        for command in [&mut by_url, &mut by_variables] {
            for name in VARIABLES_TO_CLEAR {
                command.env_remove(name);
            }
        }
        by_url.env("SECRET_URL", settings.url_for_child().expose());
        let by_url = Command::new("sh")
            .env("SECRET_URL", settings.url_for_child().expose())
            .env("PSQL", program("psql"))
            .args(["-c", "\"$PSQL\" -XAtwc 'show application_name' \"$SECRET_URL\""])
            .output()
            .unwrap();
        by_variables.args(["-XAtwc", "show application_name"]);
        for (name, value) in settings.child_environment() {
            by_variables.env(name, value.expose());
        }
        for output in [by_url, by_variables.output().unwrap()] {
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                "safe-run/7 x\n",
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

#[tokio::test]
async fn several_servers_are_tried_in_order_and_the_session_names_its_own() {
    let cluster = Cluster::get();
    let list = |query: &str| {
        settings(&format!("postgresql://{ANN}@127.0.0.1:1,localhost:{}/postgres?{query}", cluster.port))
    };
    let session = list("").connect().await.unwrap();
    assert_eq!(session.settings().host_label(), format!("localhost:{}", cluster.port));
    for query in ["read-write", "primary", "any", "prefer-standby"] {
        list(&format!("target_session_attrs={query}")).connect().await.unwrap();
    }
    let error = refusal(&list("target_session_attrs=standby")).await;
    assert_refused(&error, ErrorKind::Busy, &["2 servers", "refuses connections", "a standby"]);
    let readonly = list("target_session_attrs=read-only").with_option("default_transaction_read_only", "on");
    readonly.connect().await.unwrap();
}

#[tokio::test]
async fn our_sessions_pin_what_they_rely_on_and_a_migrations_session_keeps_the_users() {
    let cluster = Cluster::get();
    let settings = cluster.tcp(ANN, "ssldb");
    let ours = settings.connect().await.unwrap();
    let theirs = settings.connect_as(SessionProfile::Migration, None).await.unwrap();
    let show = async |session: &common::postgres::connect::Session, name: &str| -> String {
        session.query_one(&format!("show {name}"), &[]).await.unwrap().get(0)
    };
    for (name, pinned, users) in [
        ("client_encoding", "UTF8", "UTF8"),
        ("search_path", "\"\"", "foo"),
        ("TimeZone", "UTC", "Asia/Tokyo"),
        ("statement_timeout", "0", "1h"),
        ("idle_in_transaction_session_timeout", "0", "0"),
        ("idle_session_timeout", "0", "0"),
        ("row_security", "off", "on"),
        ("synchronize_seqscans", "off", "on"),
        ("extra_float_digits", "3", "1"),
        ("bytea_output", "hex", "hex"),
        ("IntervalStyle", "postgres", "postgres"),
    ] {
        assert_eq!(show(&ours, name).await, pinned, "{name}");
        assert_eq!(show(&theirs, name).await, users, "{name}");
    }
    assert!(ours.server_version_num() >= 150_000 && ours.server_major() == 15);
    let pid: i32 = ours.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    assert_eq!(ours.backend_pid(), pid);
    refuse_pooler(&ours).await.unwrap();
    let spaced = settings
        .with_option("work_mem", "5 MB")
        .with_option("application_name", r"a b\c")
        .connect()
        .await
        .unwrap();
    assert_eq!(show(&spaced, "work_mem").await, "5MB");
    assert_eq!(show(&spaced, "application_name").await, r"a b\c");
}

#[tokio::test]
async fn notices_arrive_and_a_running_query_can_be_cancelled() {
    let cluster = Cluster::get();
    let raise = "do $$ begin raise warning 'careful' using detail = 'very'; end $$";
    for settings in [
        cluster.tcp(ANN, "postgres?sslmode=require"),
        cluster.tcp(ANN, "postgres?sslmode=disable"),
        cluster.socket("ann", "postgres"),
        cluster.tcp(ANN, "plaindb"),
    ] {
        let session = settings.connect().await.unwrap();
        session.batch_execute(raise).await.unwrap();
        let (notices, dropped) = session.take_notices();
        assert_eq!((notices.len(), dropped), (1, 0));
        assert_eq!(notices[0].to_string(), "WARNING: careful (very)");
        let handle = session.cancel_handle();
        let canceller = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            handle.cancel().await
        });
        let started = Instant::now();
        let error = session.batch_execute("select pg_sleep(60)").await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("57014"));
        assert!(started.elapsed() < Duration::from_secs(30));
        canceller.await.unwrap().unwrap();
        session.close().await.unwrap();
    }
    let seen: Arc<Mutex<Vec<Notice>>> = Arc::default();
    let sink = Arc::clone(&seen);
    let session = cluster
        .tcp(ANN, "postgres")
        .connect_with_notices(Arc::new(move |notice| sink.lock().unwrap().push(notice)))
        .await
        .unwrap();
    session.batch_execute(raise).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
}
