//! Wrong command lines, settings and files, and what each program answers: the message and the next step.
//!
//! None needs a server: what can be wrong is told before one is asked, or nobody listens at the port.

use std::{fmt::Write as _, os::unix::fs::PermissionsExt, path::Path};

use super::answer::answer;

/// What the files of a case are.
pub fn prepare(folder: &Path) {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is ours");
        std::fs::write(path, text).expect("the folder is ours");
    };
    write("migrations/1_a.sql", "SELECT 1;\n");
    write("other/x", "");
    write("plain", "");
    write("x.tar", "x\n");
    write("twice/1_a.sql", "SELECT 1;\n");
    write("twice/1_b.sql", "SELECT 2;\n");
    write("latin/1_a.sql", "");
    std::fs::write(folder.join("latin/1_a.sql"), b"SELECT '\xe4';\n").expect("the folder is ours");
    write("open/1_a.sql", "BEGIN; SELECT 1;\n");
    write("down/1_a.sql", "SELECT 1;\n-- ==== DOWN ====\nSELECT 2;\n");
    write("quote/1_a.sql", "SELECT 'x;\n");
    write("verify/a.sql", "SELECT 1 WHERE;;\n-- safe-run: nonsense\n");
    write("bad.toml", "nonsense = 1\n");
    write("broken.toml", "[[\n");
    write("jobs.toml", "[[job]]\nname = \"a\"\n[[job]]\nname = \"a\"\n");
    write("name.toml", "[[job]]\nname = \"a b\"\n");
    write("sources.toml", "[[job]]\nname = \"a\"\ndatabase-url = \"x\"\ndatabase-url-file = \"y\"\n");
    for (name, text) in [
        ("ends", "SELECT 1; COMMIT;\n"),
        ("copies", "COPY t FROM stdin;\n1\n\\.\n"),
        ("says", "-- nothing\n"),
        ("makes", "CREATE TABLE x ();\n"),
    ] {
        write(&format!("verify-{name}/a.sql"), text);
    }
    write("damaged/repository.json", "x");
    write("later/repository.json", "{\"layout\": 99, \"id\": \"x\"}");
    write("token", "0123456789abcdef0123456789abcdef\n");
    write(".pg_service.conf", "[nested]\nservice=other\n");
    write("unnamed/x.sql", "SELECT 1;\n");
    for (name, hooks) in [
        ("both", "database-url-file = \"y\"\ndatabase-url-command = [\"true\"]"),
        ("nothing", "database-url-command = []"),
        ("fails", "database-url-command = [\"false\"]"),
        ("blank", "database-url-file = \"plain\""),
        ("way", "database-url = \"postgresql://u@127.0.0.1:1/db\"\nverify = \"x\""),
    ] {
        write(
            &format!("job-{name}.toml"),
            &format!("[[job]]\nname = \"a\"\ncron = \"0 3 * * *\"\n{hooks}\n"),
        );
    }
    write("format.toml", "format = \"nope\"\n");
    write("mixed/V1__a.sql", "SELECT 1;\n");
    write("mixed/20240101120000_a.up.sql", "SELECT 1;\n");
    write("last/99999999999999999999999999999999999999999_a.sql", "SELECT 1;\n");
    write("lines.conf", "[a]\nnonsense\n");
    write("goose/1_a.sql", "SELECT 1;\n");
    write("script", "true\n");
    write("lost", "#!/etc/passwd\n");
    std::fs::set_permissions(folder.join("lost"), std::fs::Permissions::from_mode(0o755)).expect("ours");
    write(
        "job-good.toml",
        "[[job]]\nname = \"a\"\ncron = \"0 3 * * *\"\ndatabase-url = \"postgresql://u@127.0.0.1:1/db\"\n",
    );
    write("long.tar", &"x".repeat(4096));
    write("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    write("bad.key", "x\n");
    std::fs::set_permissions(folder.join("bad.key"), std::fs::Permissions::from_mode(0o600)).expect("ours");
    std::fs::set_permissions(folder.join("script"), std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::os::unix::fs::symlink("loop", folder.join("loop")).expect("the folder is ours");
    std::fs::create_dir(folder.join("link")).expect("the folder is ours");
    std::os::unix::fs::symlink("nowhere", folder.join("link/1_a.sql")).expect("the folder is ours");
    databases(folder);
    std::fs::create_dir(folder.join("empty")).expect("the folder is ours");
    std::fs::set_permissions(folder.join("plain"), std::fs::Permissions::from_mode(0o644)).expect("ours");
}

/// SQLite's files, as far as they can be told from their header: it has 100 bytes.
fn databases(folder: &Path) {
    let page = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut page = vec![0_u8; 4096];
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16..24].copy_from_slice(&[0x10, 0, 1, 1, 0, 64, 32, 32]);
        page[44..48].copy_from_slice(&[0, 0, 0, 4]);
        page[56..60].copy_from_slice(&[0, 0, 0, 1]);
        change(&mut page);
        page
    };
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).expect("the folder is ours");
    };
    // A first page without a table.
    write(
        "empty.sqlite3",
        &page(&|page| {
            page[31] = 1;
            page[100] = 0x0d;
            page[105] = 0x10;
        }),
    );
    write("newer.sqlite3", &page(&|page| page[19] = 3));
    write("cut.sqlite3", &page(&|page| page.truncate(2000)));
    write("page.sqlite3", &page(&|page| page[16] = 0x11));
    write("text.sqlite3", b"PRAGMA foreign_keys=OFF;\n");
    // Bytes without any order.
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    write("noise.sqlite3", &noise.take(4096).collect::<Vec<u8>>());
}

/// Connection strings, for `backup check -d`.
const URLS: &[&str] = &[
    "postgresql://a@h:x/db",
    "mysql://h/db",
    "nosuch://h/db",
    "postgresql://a@h/db?sslmode",
    "postgresql://a@::1/db",
    "postgresql://a@[::1/db",
    "postgresql://a%zz@h/db",
    "host=h dbname=a b",
    "host=h password='x",
    "service=nope",
    "host=h nosuch=1",
    "host=a,b hostaddr=127.0.0.1 dbname=x user=y",
    "host=a,b,c port=1,2 user=a dbname=b",
    "host=h sslmode=disable sslrootcert=system user=a dbname=b",
    "host=h sslmode=what user=a dbname=b",
    "host=h user=a dbname=b sslmode=require ssl_max_protocol_version=TLSv1.1",
    "host=h user=a dbname=b connect_timeout=x",
    "host=h user=a dbname=b gssencmode=require",
    "host=@abstract user=a dbname=b",
    "host=h user=a dbname=b sslmode=prefer sslnegotiation=direct",
    "host=h user=a dbname=b replication=database",
    "host=h user=a dbname=b sslkeylogfile=x",
    "host=h user=a dbname=b sslcrldir=x",
    "host=h user=a dbname=b sslpassword=x",
    "host=h user=a dbname=b min_protocol_version=3.2",
    "service=nested",
    "host=h user=a dbname=b require_auth=scram-sha-256",
    "host=h user=a dbname=b requirepeer=x",
    "host=127.0.0.1 port=1 user=a dbname=b sslmode=verify-full sslrootcert=nosuch.pem",
    "host=127.0.0.1 port=1 user=a dbname=b sslmode=verify-full sslrootcert=plain",
    "host=127.0.0.1 port=1 user=a dbname=b sslmode=require sslcert=nosuch.pem",
    "host=127.0.0.1 port=1 user=a dbname=b sslmode=verify-full sslrootcert=ca.pem",
    "host=127.0.0.1 port=1 user=a dbname=b sslmode=require sslcert=ca.pem sslkey=nosuch.key",
    "host=127.0.0.1 port=1 user=a dbname=b sslmode=require sslcert=ca.pem sslkey=bad.key",
    "host=127.0.0.1,127.0.0.1 port=1 user=a dbname=b",
    "host=/nonexistent user=a dbname=b",
    "host=127.0.0.1 port=1 user=a dbname=b",
];

/// Command lines; `{URL}` is [`NOWHERE`].
const LINES: &[&[&str]] = &[
    &["backup"],
    &["backup", "list"],
    &["backup", "verify", "--all"],
    &["backup", "create", "-d", "{URL}", "--compress", "lz4"],
    &["backup", "create", "-d", "{URL}", "--lock-timeout", "soon"],
    &["backup", "create", "-d", "{URL}", "--repo", "other"],
    &["backup", "create", "-d", "{URL}", "--config", "bad.toml"],
    &["backup", "create", "-d", "{URL}", "--config", "broken.toml"],
    &["backup", "prune"],
    &["backup", "import", "x.tar"],
    &["backup", "pin", "x"],
    &["backup", "undelete", "x"],
    &["backup", "acknowledge", "x", "--why", "y"],
    &["backup", "schedule"],
    &["backup", "schedule", "--cron", "* * *", "-d", "{URL}"],
    &["backup", "schedule", "--cron", "@reboot", "-d", "{URL}"],
    &["backup", "schedule", "--cron", "0 3 * * *", "--timezone", "Berlin", "-d", "{URL}"],
    &["backup", "schedule", "--cron", "0 3 * * *", "--listen", "x", "-d", "{URL}"],
    &["backup", "schedule", "--cron", "0 3 * * *", "--listen", "0.0.0.0:9187", "-d", "{URL}"],
    &[
        "backup",
        "schedule",
        "--cron",
        "0 3 * * *",
        "--listen",
        "127.0.0.1:9187",
        "--token-file",
        "plain",
        "-d",
        "{URL}",
    ],
    &["backup", "schedule", "--cron", "0 3 * * *", "--config", "name.toml"],
    &["backup", "schedule", "--config", "jobs.toml"],
    &["backup", "schedule", "--config", "name.toml"],
    &["backup", "schedule", "--config", "sources.toml"],
    &["backup", "schedule", "--cron", "0 3 a b c d e f", "-d", "{URL}"],
    &["backup", "schedule", "--config", "job-both.toml"],
    &["backup", "schedule", "--config", "job-nothing.toml"],
    &["backup", "schedule", "--config", "job-fails.toml"],
    &["backup", "schedule", "--config", "job-blank.toml"],
    &["backup", "schedule", "--config", "job-way.toml"],
    &["backup", "schedule", "--config", "job-way.toml", "-d", "{URL}"],
    &["backup", "schedule", "--config", "job-way.toml", "--cron", "0 3 * * *"],
    &["backup", "schedule", "--config", "job-fails.toml", "--job", "b"],
    &["NOTIFY_SOCKET=/nonexistent", "backup", "schedule", "--cron", "0 3 * * *", "-d", "{URL}"],
    &[
        "backup",
        "schedule",
        "--cron",
        "0 3 * * *",
        "--listen",
        "192.0.2.1:9187",
        "--token-file",
        "token",
        "-d",
        "{URL}",
    ],
    &["backup", "schedule", "--config", "job-good.toml", "--job", "b"],
    &[
        "SSL_CERT_FILE={FOLDER}/plain",
        "SSL_CERT_DIR={FOLDER}/empty",
        "backup",
        "check",
        "-d",
        "postgresql://u@127.0.0.1:1/db?sslmode=verify-full&sslrootcert=system",
    ],
    &["backup", "list", "--repo", "damaged"],
    &["backup", "list", "--repo", "later"],
    &["PGSERVICE=a", "PGSERVICEFILE={FOLDER}/nosuch", "backup", "check"],
    &["PGSERVICE=a", "PGSERVICEFILE={FOLDER}/lines.conf", "backup", "check"],
    &["PGSERVICE=a", "PGSERVICEFILE={FOLDER}/plain", "backup", "check"],
    &["safe-run", "--config", "format.toml", "status", "-d", "{URL}"],
    &["safe-run", "--dir", "mixed", "new", "x"],
    &["safe-run", "--dir", "last", "new", "x"],
    &["safe-run", "--dir", "loop", "-d", "{URL}"],
    &["safe-run", "--dir", "link", "-d", "{URL}"],
    &["safe-run", "--report", "x.html", "baseline", "1", "--dry-run", "-d", "{URL}"],
    &["safe-run", "--level", "deep", "import", "x.tar", "-d", "{URL}"],
    &["safe-run", "import", "x.tar", "-d", "{URL}", "--snapshot", "clone"],
    &["safe-run", "import", "x.tar", "-d", "{URL}", "--skip-table", "a.b"],
    &["safe-run", "import", "x.tar", "-d", "{URL}", "--type", "a=text"],
    &["safe-run", "import", "", "-d", "{URL}"],
    &["safe-run", "import", "empty", "-d", "{URL}"],
    &["safe-run", "import", "newer.sqlite3", "-d", "{URL}"],
    &["safe-run", "import", "cut.sqlite3", "-d", "{URL}"],
    &["safe-run", "import", "page.sqlite3", "-d", "{URL}"],
    &["safe-run", "import", "text.sqlite3", "-d", "{URL}"],
    &["safe-run", "import", "noise.sqlite3", "-d", "{URL}"],
    &["safe-run", "import", "nosuch.sqlite3", "-d", "{URL}"],
    &["safe-run", "import", "x.tar", "-d", "{URL}"],
    &["safe-run", "import", "x.tar", "-d", "{URL}", "--epoch", "x"],
    &["safe-run", "import", "x.tar", "-d", "{URL}", "--map", "x"],
    &["safe-run", "import", "x.tar", "-d", "{URL}", "--type", "x"],
    &["safe-run", "import", "x.tar", "-d", "{URL}", "--timezone", "x"],
    &["safe-run", "--report", "x.html", "plan"],
    &["safe-run", "--report", "x.html", "report"],
    &["safe-run", "--format", "nope"],
    &["safe-run", "-d", "{URL}", "--verify", "verify-ends"],
    &["safe-run", "-d", "{URL}", "--verify", "verify-copies"],
    &["safe-run", "-d", "{URL}", "--verify", "verify-says"],
    &["safe-run", "-d", "{URL}", "--verify", "verify-makes"],
    &["safe-run", "-d", "{URL}", "--verify", "latin"],
    &["restore"],
    &["restore", "latest"],
    &["restore", "x.tar", "-d", "{URL}"],
    // Whatever is given in the wrong place: no password is told.
    &["restore", "latest", "--into", "postgresql://u:hidden@h/db"],
    &["restore", "postgresql://u:hidden@h/db", "-d", "{URL}"],
    &["backup", "-r", "s3://a:hidden@b/c", "list"],
    &["safe-run", "postgresql://u:hidden@h/db"],
    &["safe-run", "import", "postgresql://u:hidden@h/db", "-d", "{URL}"],
    &["safe-run", "-d", "{URL}", "--dir", "nosuch"],
    &["safe-run", "-d", "{URL}", "--", "nosuchprogram"],
    &["safe-run", "-d", "{URL}", "--", "./nosuch"],
    &["safe-run", "-d", "{URL}", "--", "./plain"],
    &["safe-run", "psql", "x"],
    &["safe-run", "staus"],
    &["safe-run", "-d", "{URL}", "--max-loss", "x"],
    &["safe-run", "-d", "{URL}", "--verify", "nosuch"],
    &["safe-run", "-d", "{URL}", "--verify", "empty"],
    &["safe-run", "-d", "{URL}", "--verify", "verify"],
    &["safe-run", "check", "--only", "nope"],
    &["safe-run", "-d", "{URL}", "--keep-clone", "--", "true"],
    &["safe-run", "-d", "{URL}", "--snapshot", "clone", "--fence", "none", "--", "true"],
    &["safe-run", "-d", "{URL}", "--snapshot-only", "--snapshot", "clone"],
    &["safe-run", "-d", "{URL}", "--report", "a.html", "--report-json", "a.html"],
    &["safe-run", "-d", "{URL}", "--report", "empty"],
    &["safe-run", "report"],
    &["safe-run", "new", "///"],
    &["safe-run", "--allow-loss", "x=1", "status"],
    &["safe-run", "--tx", "all", "--", "true"],
];

/// What is answered to everything in [`URLS`] and [`LINES`], and the hints that were given meanwhile.
pub fn answers() -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path());
    let (mut said, mut given) = (String::new(), String::new());
    let urls: Vec<Vec<&str>> = URLS.iter().map(|url| vec!["backup", "check", "-d", url]).collect();
    for arguments in urls.iter().map(Vec::as_slice).chain(LINES.iter().copied()) {
        let (answer, hints) = answer(folder.path(), arguments);
        writeln!(said, "{answer}").expect("a string");
        given.push_str(&hints);
    }
    (said, given)
}
