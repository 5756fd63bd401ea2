//! Real throw-away servers, one fresh database per test.
//!
//! A server runs under `scripts/setup serve`, which ends it when its standard input ends. The other end of
//! that pipe is ours, so no server outlives its test process, even one that was killed with SIGKILL; nothing
//! is ever ended by name. `scripts/test` starts one server per major version for the whole run and says where
//! in
//! `SAFE_RUN_TEST_SHARED=14=/folder:15=/folder`; without it every test process starts its own.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::installation;
use crate::psql;
use crate::servers::{LAST_RELEASED, servers};

/// The major versions that are supported and tested.
pub const MAJORS: [u32; 6] = [14, 15, 16, 17, 18, 19];

/// [`MAJORS`] as far as they are to be had: one that is not released yet may be missing, which `scripts/test` says at its end.
pub fn majors() -> Vec<u32> {
    MAJORS.into_iter().filter(|major| *major <= LAST_RELEASED || servers().bins.contains_key(major)).collect()
}

/// The oldest and the newest released major version, and the one that is not released yet where it is to be had.
pub fn ends() -> Vec<u32> {
    majors().into_iter().filter(|major| *major == MAJORS[0] || *major >= LAST_RELEASED).collect()
}

/// The major version that a test gets where it asks for the newest released one: `SAFE_RUN_TEST_NEWEST=19` runs all of them on the one
/// that is not released yet.
fn stands_for(major: u32) -> u32 {
    static NEWEST: OnceLock<u32> = OnceLock::new();
    let newest = || {
        let wanted = std::env::var("SAFE_RUN_TEST_NEWEST").ok();
        wanted.map_or(LAST_RELEASED, |text| text.parse().expect("SAFE_RUN_TEST_NEWEST is a major version"))
    };
    if major == LAST_RELEASED { *NEWEST.get_or_init(newest) } else { major }
}

/// A running server.
pub struct Cluster {
    major: u32,
    /// Holds the socket, and for a private server everything else too.
    dir: PathBuf,
    port: u16,
    tcp: bool,
    server: Option<Server>,
}

struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
}

/// A folder for what has a socket in it: not in TMPDIR, since a socket's path may have 107 bytes at most.
///
/// # Panics
/// If there is none to be had.
pub fn short_folder(prefix: &str) -> tempfile::TempDir {
    let parent = std::env::var_os("SAFE_RUN_TEST_FOLDER").unwrap_or_else(|| "/tmp".into());
    tempfile::Builder::new().prefix(prefix).tempdir_in(parent).expect("the folder of the tests is writable")
}

/// Settings of a private server. The default is a socket only, trust for everybody, and no fsync.
#[derive(Default, Clone)]
pub struct Options {
    conf: Vec<String>,
    hba: Option<String>,
    initdb: Option<Vec<String>>,
    tcp: bool,
    tls: bool,
    primary: Option<String>,
    extensions: Vec<(String, String)>,
    unpacked: Option<PathBuf>,
}

impl Options {
    /// A socket only, trust for everybody, no fsync.
    pub fn new() -> Options {
        Options::default()
    }

    /// A line of postgresql.conf, such as `wal_level = logical`.
    pub fn conf(mut self, line: &str) -> Options {
        self.conf.push(line.to_owned());
        self
    }

    /// Files of extensions beside the server's own: a name such as `words--1.0.sql`, and its text.
    pub fn extension(mut self, files: &[(&str, &str)]) -> Options {
        self.extensions.extend(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
        self
    }

    /// The extensions of [`crate::other_tools::extensions`]: for PostgreSQL 15 alone.
    pub fn real_extensions(mut self) -> Options {
        self.unpacked = Some(crate::other_tools::extensions());
        self
    }

    /// The whole pg_hba.conf.
    pub fn hba(mut self, text: &str) -> Options {
        self.hba = Some(text.to_owned());
        self
    }

    /// Sockets trust; TCP asks for a SCRAM password.
    pub fn scram(self) -> Options {
        self.tcp().hba("local all all trust\nhost all all all scram-sha-256\n")
    }

    /// Arguments of initdb in place of `--no-locale --auth=trust`.
    pub fn initdb(mut self, arguments: &[&str]) -> Options {
        self.initdb = Some(arguments.iter().map(|&argument| argument.to_owned()).collect());
        self
    }

    /// Also listens on 127.0.0.1, on a free port.
    pub fn tcp(mut self) -> Options {
        self.tcp = true;
        self
    }

    /// TLS on TCP, with a certificate for `localhost` (not for 127.0.0.1) of the CA in [`Cluster::ca_file`].
    pub fn tls(mut self) -> Options {
        self.tls = true;
        self.tcp()
    }

    /// A hot standby that streams from `primary`, in place of a server of its own; its settings begin as the primary's.
    pub fn standby_of(mut self, primary: &Cluster) -> Options {
        self.primary =
            Some(format!("host={} port={} user=postgres", primary.socket_dir().display(), primary.port()));
        self
    }

    /// With fsync and full page writes, for tests of crashes.
    pub fn durable(self) -> Options {
        self.conf("fsync = on").conf("full_page_writes = on").conf("synchronous_commit = on")
    }
}

impl Cluster {
    /// Every major version that this machine has.
    pub fn majors() -> Vec<u32> {
        servers().bins.keys().copied().collect()
    }

    /// The server of this major version that all tests use, each in databases of its own.
    pub fn shared(major: u32) -> &'static Cluster {
        let major = stands_for(major);
        static SHARED: [OnceLock<Cluster>; MAJORS.len()] = [const { OnceLock::new() }; MAJORS.len()];
        let place =
            MAJORS.iter().position(|&m| m == major).unwrap_or_else(|| panic!("{major} is not in MAJORS"));
        // The static is never dropped; the end of the process closes the pipe, and that ends the server.
        SHARED[place].get_or_init(|| match shared_dir(major) {
            Some(dir) => Cluster { major, dir, port: 5432, tcp: false, server: None },
            None => Cluster::start(major, &Options::new()),
        })
    }

    /// Starts a private server with settings of its own; it ends when dropped.
    pub fn start(major: u32, options: &Options) -> Cluster {
        let major = stands_for(major);
        let mut bin = servers().bin(major);
        let dir = short_folder("sr.").keep();
        let port = if options.tcp { free_port() } else { 5432 };
        write_options(major, &dir, options, port);
        if !options.extensions.is_empty() && major >= 18 {
            installation::write_extensions(&dir, &options.extensions);
        } else if !options.extensions.is_empty() {
            let sharedir =
                Cluster::shared(major).psql("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'");
            bin = installation::with_extensions(&bin, Path::new(&sharedir), &dir, &options.extensions);
        }
        let mut libraries = None;
        if let Some(root) = &options.unpacked {
            let (copy, folders) = installation::with_unpacked(&bin, root, &dir);
            (bin, libraries) = (copy, Some(("LD_LIBRARY_PATH", folders)));
        }
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/setup");
        let mut child = Command::new("bash")
            .arg(setup)
            .arg("serve")
            .args([&bin, &dir])
            .envs(libraries)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A test runner that gives up on a test signals its process group; the server must end in order.
            .process_group(0)
            .spawn()
            .expect("bash starts");
        let mut answer = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut answer).expect("stdout is readable");
        if answer != "ready\n" {
            let output = child.wait_with_output().expect("the child can be waited for");
            panic!("PostgreSQL {major} did not start:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let stdin = child.stdin.take();
        Cluster { major, dir, port, tcp: options.tcp, server: Some(Server { child, stdin }) }
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The folder of the unix socket: a `host` for libpq.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// The port, of the socket's name too.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join("log")).unwrap_or_default()).into_owned()
    }

    /// The certificate of the CA that signed the server's, in PEM; only with [`Options::tls`].
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("files/ca.crt")
    }

    /// The URL of a database as the superuser over the socket.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The URL of a database as another role over the socket.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        let dir = encode(&self.dir.to_string_lossy());
        format!("postgresql://{}@/{}?host={dir}&port={}", encode(user), encode(database), self.port)
    }

    /// The URL over TCP, only with [`Options::tcp`]; `user` may be `name:password` with both percent-encoded.
    pub fn tcp_url(&self, user: &str, host: &str, database: &str) -> String {
        assert!(self.tcp, "this server was not started with Options::tcp");
        format!("postgresql://{user}@{host}:{}/{}", self.port, encode(database))
    }

    /// Runs SQL in the database `postgres`; see [`psql::run`].
    pub fn psql(&self, sql: &str) -> String {
        psql::run(&self.url("postgres"), sql)
    }

    /// An empty database whose name begins with `name`, dropped when the value is.
    pub fn fresh_database(&self, name: &str) -> Database<'_> {
        self.fresh_database_with(name, "TEMPLATE template0")
    }

    /// Like [`Cluster::fresh_database`], with the options of `CREATE DATABASE`.
    pub fn fresh_database_with(&self, name: &str, options: &str) -> Database<'_> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // The process id keeps test processes apart on a shared server; `x` ends the number, so that no name
        // of ours is the beginning of another one of ours.
        let name = format!("{name}_{}_{number}x", std::process::id());
        assert!(name.len() <= 63, "database name too long: {name}");
        self.psql(&format!("CREATE DATABASE {} {options}", psql::quote_ident(&name)));
        Database { cluster: self, name }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            server.stdin = None;
            if let Err(error) = server.child.wait() {
                eprintln!("warning: PostgreSQL {} in {}: {error}", self.major, self.dir.display());
            }
        }
    }
}

/// A database of one test.
pub struct Database<'c> {
    cluster: &'c Cluster,
    name: String,
}

impl Database<'_> {
    /// The server.
    pub fn cluster(&self) -> &Cluster {
        self.cluster
    }

    /// The name, unique on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL as the superuser over the socket.
    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// Runs SQL and returns the output, unaligned, without headers; panics with psql's message on an error.
    pub fn psql(&self, sql: &str) -> String {
        psql::run(&self.url(), sql)
    }

    /// Runs SQL; the error is psql's message.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        psql::try_run(&self.url(), sql)
    }

    /// Opens a session that lasts over several calls.
    pub fn session(&self) -> psql::Session {
        psql::Session::open(&self.url())
    }

    /// The databases whose names begin with this one's, such as what a restore or a swap made of it; sorted.
    /// All are dropped with this value.
    pub fn family(&self) -> Vec<String> {
        let list = "SELECT datname FROM pg_database WHERE starts_with(datname, $NAME) ORDER BY 1";
        let list = list.replace("$NAME", &psql::quote_literal(&self.name));
        self.cluster.psql(&list).lines().map(str::to_owned).collect()
    }
}

impl Drop for Database<'_> {
    /// Also drops what a swap made of it: databases whose names begin with this one's.
    fn drop(&mut self) {
        // A database with a subscription can't be dropped.
        let subscriptions = format!(
            "SELECT datname FROM pg_database \
             WHERE starts_with(datname, {}) AND oid IN (SELECT subdbid FROM pg_subscription)",
            psql::quote_literal(&self.name)
        );
        let unsubscribe = "SELECT format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', subname), \
             format('DROP SUBSCRIPTION %I', subname) FROM pg_subscription \
             WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())\n\\gexec\n";
        for name in psql::try_run(&self.cluster.url("postgres"), &subscriptions).unwrap_or_default().lines() {
            let _ = psql::try_run(&self.cluster.url(name), unsubscribe);
        }
        let script = format!(
            "SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', datname) FROM pg_database \
             WHERE starts_with(datname, {})\n\\gexec\n",
            psql::quote_literal(&self.name)
        );
        if let Err(error) = psql::try_run(&self.cluster.url("postgres"), &script) {
            eprintln!("warning: dropping {}: {error}", self.name);
        }
    }
}

fn shared_dir(major: u32) -> Option<PathBuf> {
    let list = std::env::var("SAFE_RUN_TEST_SHARED").ok()?;
    let key = major.to_string();
    list.split(':')
        .filter_map(|entry| entry.split_once('='))
        .find(|(m, _)| *m == key)
        .map(|(_, dir)| dir.into())
}

fn free_port() -> u16 {
    // Two threads of this process must not be given the same one; another process still might, in theory.
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    loop {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let port = listener.local_addr().expect("it is bound").port();
        let mut given = GIVEN.lock().expect("no holder panics");
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}

fn write_options(major: u32, dir: &Path, options: &Options, port: u16) {
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("the folder is ours");
    let mut conf = options.conf.join("\n");
    conf.push_str(&format!("\nport = {port}\n"));
    if !options.extensions.is_empty() && major >= 18 {
        conf.push_str(&format!("extension_control_path = '$system:{}'\n", dir.display()));
    }
    if options.tcp {
        conf.push_str("listen_addresses = '127.0.0.1'\n");
    }
    if options.tls {
        conf.push_str("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n");
        std::fs::create_dir(dir.join("files")).expect("the folder is ours");
        let (ca, certificate, key) = certificates();
        write("files/ca.crt", &ca);
        write("files/server.crt", &certificate);
        write("files/server.key", &key);
    }
    write("conf", &conf);
    if let Some(hba) = &options.hba {
        write("hba", hba);
    }
    if let Some(primary) = &options.primary {
        // The newest client copies every older server too.
        write(
            "standby",
            &format!("{}\n{primary}\n", servers().newest_tools().join("pg_basebackup").display()),
        );
    }
    if let Some(arguments) = &options.initdb {
        write("initdb", &(arguments.join("\n") + "\n"));
    }
}

/// A CA's certificate, and a certificate for `localhost` with its key, all in PEM.
fn certificates() -> (String, String, String) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "safe-run tests");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    (ca.pem(), server.pem(), key.serialize_pem())
}

/// Percent-encodes everything but letters, digits, `-`, `_` and `.`.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
