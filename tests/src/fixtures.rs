//! Databases for tests: one with everything in it, and a realistic one.
//!
//! `everything` is for equality: whatever PostgreSQL can hold is in it at least once, with values and names
//! chosen to break naive code. `shop` is for stories and speed; the demo loads the same file.

use std::path::{Path, PathBuf};

use crate::cluster::Database;

const PARTS: [&str; 3] = [
    include_str!("everything/types.sql"),
    include_str!("everything/tables.sql"),
    include_str!("everything/objects.sql"),
];

/// Roles belong to the whole server and tests run at the same time: whoever is second finds them there.
pub(crate) const ROLES: &str = r#"
DO $$
DECLARE role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['safe_run_test_owner', 'safe_run_test_reader', 'safe_run_test_o''dd "role"'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN EXECUTE format('CREATE ROLE %I', role); END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
END $$;
"#;

/// The script of a database with everything that this major version has. For psql and for a superuser.
pub fn everything(major: u32) -> String {
    let mut script = ROLES.to_owned();
    let mut skip = false;
    for line in PARTS.iter().flat_map(|part| part.lines()) {
        match line.strip_prefix("--@since ") {
            Some(since) => skip = major < since.parse::<u32>().expect("a major version"),
            None if line == "--@end" => skip = false,
            None if !skip => {
                script.push_str(line);
                script.push('\n');
            }
            None => {}
        }
    }
    script
}

/// Fills a database with [`everything`].
pub fn load_everything(database: &Database) {
    database.psql(&everything(database.cluster().major()));
}

/// The script of the shop; the psql variable `scale` multiplies its about 500,000 rows.
pub fn shop() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo-data/shop.sql")
}

/// Fills a database with the shop, of `scale` times 500,000 rows; `0.01` is enough for most tests.
pub fn load_shop(database: &Database, scale: f64) {
    let text = std::fs::read_to_string(shop()).unwrap_or_else(|e| panic!("{}: {e}", shop().display()));
    database.psql(&format!("\\set scale {scale}\n{text}"));
}

/// A folder of the demo's migrations, such as `migrations-good`.
pub fn demo_migrations(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo-data").join(name);
    assert!(path.is_dir(), "no {}", path.display());
    path
}
