//! `backup check`: can this role, from this machine, back up this database, restore it, put the restored one in its place, and
//! run commands with an undo? Four answers, each with the SQL that would help. Changes nothing and shows no secret.

use common::{
    Error, QualifiedName, Result, Verdict,
    cli::{Output, Settings, SharedArgs, output::Tone, process},
    files, format,
    postgres::{
        ConnectionSettings, Session, beside_rows, connect, database,
        known_fixes::Fix,
        lock_room,
        obstacles::{self, LARGE_OBJECTS, Obstacle, UNREADABLE, Way},
        tools,
    },
    repository::Repository,
};
use serde::Serialize;

use crate::{drill, space};

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Item {
    what: &'static str,
    ok: bool,
    found: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fix: Vec<String>,
}

/// What a check can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ability {
    /// Back up the whole database.
    Backup,
    /// Restore it beside the live one.
    Restore,
    /// Restore it in the place of the live one.
    Replace,
    /// Run commands with an undo, by whatever way.
    Undo,
}

impl Ability {
    const ALL: [Self; 4] = [Self::Backup, Self::Restore, Self::Replace, Self::Undo];

    fn phrase(self) -> &'static str {
        match self {
            Self::Backup => "back up",
            Self::Restore => "restore beside",
            Self::Replace => "replace",
            Self::Undo => "run commands with an undo",
        }
    }
}

/// One of the four answers.
#[derive(Debug, Clone, Serialize)]
struct Answer {
    can: &'static str,
    ok: bool,
    /// By which ways a command can be undone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ways: Vec<&'static str>,
    /// What was looked at for a yes that only a trial would prove.
    #[serde(skip_serializing_if = "Option::is_none")]
    rests_on: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    obstacles: Vec<Obstacle>,
    #[serde(skip)]
    ability: Ability,
}

#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    database: String,
    host: String,
    user: String,
    /// Everything that was asked for holds.
    ok: bool,
    checks: Vec<Item>,
    answers: Vec<Answer>,
}

/// Runs every check and prints the result. Exit code 0 when all that is `asked` for would work (a backup, if nothing is named),
/// 3 when it would not, 4 when the server can't be reached.
pub async fn run(asked: &[Ability], shared: &SharedArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let connection = settings.connection()?.with_application_name("backup check");
    connection.warnings().iter().for_each(|warning| output.warn(warning));
    process::wait_for_server(&connection, shared.wait, output).await?;
    let session = connection.connect().await?;
    let mut checks = vec![server(&session).await];
    checks.extend(releases(session.server_version_num()));
    checks.push(client_tools(&session).await);
    checks.push(lock_slots(&session).await?);
    checks.push(rights(&session, connection.user()).await?);
    checks.push(large_objects(&session, connection.user()).await?);
    checks.push(repository_folder(settings, &session).await);
    checks.extend(rows_of_extensions(&session).await?);
    checks.extend(scratch_databases(session.settings()).await);
    let answers = answers(&checks, &obstacles::find(&session).await?);
    session.close().await?;
    let asked = if asked.is_empty() { &[Ability::Backup] } else { asked };
    let ok = answers.iter().all(|answer| answer.ok || !asked.contains(&answer.ability));
    let report = Report {
        verdict: match (ok, answers.iter().all(|answer| answer.ok)) {
            (true, true) => Verdict::Ready,
            (true, false) => Verdict::ReadyFor,
            (false, _) => Verdict::NotReady,
        },
        database: connection.database().to_owned(),
        host: connection.host_label(),
        user: connection.user().to_owned(),
        ok,
        checks,
        answers,
    };
    if output.is_json() {
        output.document(&report)?;
    } else {
        output.data(&render(&report, asked, output))?;
    }
    Ok(if report.ok { 0 } else { common::ErrorKind::Refused.exit_code() })
}

fn answers(checks: &[Item], found: &[Obstacle]) -> Vec<Answer> {
    let is_ready = checks.iter().all(|check| check.ok);
    let stopped = |way: Way| -> Vec<Obstacle> {
        found.iter().filter(|obstacle| way.is_stopped_by(obstacle)).cloned().collect()
    };
    Ability::ALL
        .into_iter()
        .map(|ability| {
            let (mut ways, mut in_the_way) = (Vec::new(), Vec::new());
            let ok = match ability {
                // Its obstacles are told one by one, with the checks.
                Ability::Backup => is_ready,
                Ability::Restore => {
                    in_the_way = stopped(Way::Restore);
                    in_the_way.is_empty()
                }
                Ability::Replace => {
                    in_the_way = stopped(Way::Replace);
                    in_the_way.is_empty()
                }
                Ability::Undo => {
                    let (file, clone) = (stopped(Way::File), stopped(Way::Clone));
                    if file.is_empty() && is_ready {
                        ways.push("by file");
                    }
                    if clone.is_empty() {
                        ways.push("by clone");
                    }
                    in_the_way = if ways.is_empty() { clone } else { Vec::new() };
                    !ways.is_empty()
                }
            };
            let is_tried = match ability {
                Ability::Backup => false,
                Ability::Restore | Ability::Replace => true,
                Ability::Undo => ways.contains(&"by file"),
            };
            let rests_on = (ok && is_tried).then_some("catalog");
            Answer { can: ability.phrase(), ok, ways, rests_on, obstacles: in_the_way, ability }
        })
        .collect()
}

/// What the answers about restores and an undo by file rest on, and what they don't say.
const ONLY_A_TRIAL: &str = "       \"yes\" is what the catalog tells of this role on this server; where definitions or rows run code, only a trial in a scratch\n       \
     database proves that they come back: `backup drill` makes one, and safe-run before a command runs\n";

/// What can be done, and what stands in the way of the rest.
fn render_answers(report: &Report, output: &Output) -> String {
    /// Obstacles that are printed for each answer; `--json` has all.
    const SHOWN: usize = 20;
    let mut text = String::new();
    let mut told: Vec<&Obstacle> = Vec::new();
    let mut statements: Vec<&str> = Vec::new();
    for answer in &report.answers {
        let word = if answer.ok { output.paint(Tone::Good, "yes") } else { output.paint(Tone::Bad, "no") };
        let ways = match answer.ways.as_slice() {
            [] => String::new(),
            ways => format!(", {}", ways.join(" and ")),
        };
        text.push_str(&format!("can {}{ways}: {word}\n", answer.can));
        let fresh: Vec<&Obstacle> =
            answer.obstacles.iter().filter(|obstacle| !told.contains(obstacle)).collect();
        if fresh.len() < answer.obstacles.len() {
            text.push_str("       because of what stands above\n");
        }
        for obstacle in fresh.iter().take(SHOWN) {
            text.push_str(&format!("       {}\n", obstacle.line()));
            for help in &obstacle.helps {
                if !statements.contains(&help.as_str()) {
                    text.push_str(&format!("           {help}\n"));
                    statements.push(help);
                }
            }
        }
        if fresh.len() > SHOWN {
            text.push_str(&format!("       and {} more (--json lists all)\n", fresh.len() - SHOWN));
        }
        told.extend(fresh);
    }
    if report.answers.iter().any(|answer| answer.rests_on.is_some()) {
        text.push_str(ONLY_A_TRIAL);
    }
    text
}

fn render(report: &Report, asked: &[Ability], output: &Output) -> String {
    let what: Vec<&str> = asked.iter().map(|ability| ability.phrase()).collect();
    let what = what.join(", ");
    let word = match report.verdict {
        Verdict::ReadyFor => {
            output.paint(Verdict::ReadyFor.tone(), &format!("{} {what}", Verdict::ReadyFor.word()))
        }
        verdict => output.verdict(verdict),
    };
    let mut text =
        format!("{word}  database \"{}\" on {} as \"{}\"\n", report.database, report.host, report.user);
    for check in &report.checks {
        let word = if check.ok { output.paint(Tone::Good, "ok") } else { output.paint(Tone::Bad, "no") };
        text.push_str(&format!("  {word}  {:<13} {}\n", check.what, check.found));
        for fix in &check.fix {
            text.push_str(&format!("                    {fix}\n"));
        }
    }
    text + &render_answers(report, output)
}

fn item(what: &'static str, result: Result<String>) -> Item {
    match result {
        Ok(found) => Item { what, ok: true, found, fix: Vec::new() },
        Err(error) => Item {
            what,
            ok: false,
            found: error.message().to_owned(),
            fix: error.hint().map(str::to_owned).into_iter().collect(),
        },
    }
}

async fn server(session: &Session) -> Item {
    let looked = async {
        crate::check_server(session).await?;
        connect::refuse_pooler(session).await?;
        let row = session
            .query_one(
                "SELECT pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery(),
                        pg_catalog.pg_database_size(pg_catalog.current_database())",
                &[],
            )
            .await
            .map_err(|source| Error::postgres("could not ask the server", source))?;
        let (version, standby, size): (String, bool, i64) = (row.get(0), row.get(1), row.get(2));
        let role = if standby { "hot standby" } else { "primary" };
        Ok(format!("PostgreSQL {version}, {role}, {} on disk", format::bytes(size.unsigned_abs())))
    };
    item("server", looked.await)
}

/// What a newer minor release would mend, and whether there will be any more. It stops no backup.
fn releases(version_num: i32) -> Option<Item> {
    let mut said: Vec<String> = Fix::ALL
        .into_iter()
        .filter(|fix| !fix.is_in(version_num))
        .filter_map(|fix| Some(format!("{} mends: {}", fix.release(version_num)?, fix.mends()?)))
        .collect();
    if let Some(last) = Fix::last_of_its_major(version_num) {
        said.push(format!("PostgreSQL {} has had its last release ({last})", version_num / 10_000));
    }
    let first = (!said.is_empty()).then(|| said.remove(0))?;
    Some(Item { what: "releases", ok: true, found: first, fix: said })
}

async fn client_tools(session: &Session) -> Item {
    let (dump, restore) = (tools::installed("pg_dump").await, tools::installed("pg_restore").await);
    let chosen = tools::choose_pg_dump(&dump, session.server_version_num()).and_then(|dump| {
        let restore = tools::choose("pg_restore", &restore, dump.major)?;
        Ok(format!("pg_dump {} ({}), pg_restore {}", dump.version, dump.path.display(), restore.version))
    });
    item("client tools", chosen)
}

/// Every table is locked for the time of a backup, and all locks share one table in the server's memory.
async fn lock_slots(session: &Session) -> Result<Item> {
    let room = lock_room::find(session).await?;
    let found = format!(
        "{} for {} to be locked at once",
        format::plural(room.promised, "slot", "slots"),
        format::plural(room.objects, "table, view or sequence", "tables, views and sequences")
    );
    Ok(match room.require() {
        Ok(()) => item("lock slots", Ok(found)),
        Err(_) => Item {
            what: "lock slots",
            ok: false,
            found,
            fix: vec![format!("{};  -- and restart the server", room.remedy())],
        },
    })
}

async fn rights(session: &Session, user: &str) -> Result<Item> {
    let rows = session
        .query(UNREADABLE, &[])
        .await
        .map_err(|source| Error::postgres("could not read the role's privileges", source))?;
    if rows.is_empty() {
        return Ok(item("rights", Ok("every table and sequence can be read".to_owned())));
    }
    let role = common::Ident::new(user);
    let mut fix = Vec::new();
    let (mut unreadable, mut hidden) = (0, 0);
    for row in &rows {
        let name = common::QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        if row.get("no_usage") {
            let grant = format!("GRANT USAGE ON SCHEMA {} TO {role};", name.schema);
            if !fix.contains(&grant) {
                fix.push(grant);
            }
        }
        if row.get("no_select") {
            unreadable += 1;
            fix.push(format!("GRANT SELECT ON {name} TO {role};"));
        }
        if row.get("hides_rows") {
            hidden += 1;
        }
    }
    let total = fix.len();
    if total > 6 {
        // One predefined role says the same in one line.
        fix = vec![format!(
            "GRANT pg_read_all_data TO {role};  -- {total} single grants would be needed otherwise"
        )];
    }
    if hidden > 0 {
        fix.push(format!("ALTER ROLE {role} BYPASSRLS;"));
    }
    let found =
        format!("{unreadable} tables or sequences can't be read; row-level security hides rows of {hidden}");
    Ok(Item { what: "rights", ok: false, found, fix })
}

async fn large_objects(session: &Session, user: &str) -> Result<Item> {
    let row = session
        .query_one(LARGE_OBJECTS, &[])
        .await
        .map_err(|source| Error::postgres("could not count the large objects", source))?;
    let (count, readable): (i64, bool) = (row.get(0), row.get(1));
    Ok(if count == 0 || readable {
        item("large objects", Ok(format::count(count.unsigned_abs())))
    } else {
        Item {
            what: "large objects",
            ok: false,
            found: format!("{count}, which the role may not read"),
            fix: vec![format!("GRANT SELECT ON pg_catalog.pg_largeobject TO {};", common::Ident::new(user))],
        }
    })
}

/// What killed drills left on the server. It stops no backup, and `backup drill` drops it.
async fn scratch_databases(connection: &ConnectionSettings) -> Option<Item> {
    // From where drills say that they are alive: advisory locks belong to one database.
    let session = database::connect_maintenance(connection, &[]).await.ok()?;
    let names = drill::SCRATCH.leftovers(&session).await.ok().filter(|names| !names.is_empty())?;
    let names: Vec<String> = names.iter().map(|name| common::ident::printable(name)).collect();
    Some(item(
        "leftovers",
        Ok(format!("killed drills left {}; the next `backup drill` drops them", names.join(", "))),
    ))
}

/// Tables of extensions with rows that pg_dump does not write. They stop no backup.
async fn rows_of_extensions(session: &Session) -> Result<Option<Item>> {
    const NAMED: usize = 5;
    let tables = beside_rows::unwritten_tables(session).await?;
    if tables.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = tables.iter().take(NAMED).map(QualifiedName::short).collect();
    let more = tables.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let found = common::ident::printable(&format!(
        "pg_dump writes no rows of {} of extensions ({}{more})",
        format::plural(tables.len() as u64, "table", "tables"),
        names.join(", ")
    ));
    let what_it_means = "A restore, and an undo by file, have what CREATE EXTENSION makes again; an undo by clone has every row.";
    Ok(Some(Item { what: "extensions", ok: true, found, fix: vec![what_it_means.to_owned()] }))
}

async fn repository_folder(settings: &Settings, session: &Session) -> Item {
    let estimate = estimate(settings, session).await;
    let path = &settings.repo;
    let existing = path.ancestors().find(|ancestor| ancestor.exists() || ancestor.as_os_str().is_empty());
    let folder = match existing {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => std::path::Path::new("."),
    };
    let found = files::free_space(folder).and_then(|free| {
        files::check_writable(folder)?;
        let state = if path.exists() { "exists" } else { "is made at the first use" };
        let estimate = estimate?;
        let found = format!(
            "{} {state}, {} free; a snapshot will take about {}",
            path.display(),
            format::bytes(free),
            format::bytes(estimate)
        );
        enough(found, free, estimate)
    });
    item("repository", found)
}

/// What was found, if there is room for it.
fn enough(found: String, free: u64, estimate: u64) -> Result<String> {
    if free < estimate {
        return Err(Error::refused(found).with_hint("Free some space, or choose another disk with --repo."));
    }
    Ok(found)
}

/// Bytes that a snapshot will take.
async fn estimate(settings: &Settings, session: &Session) -> Result<u64> {
    // The size on disk takes no lock; unreadable tables count as well.
    let row = session
        .query_one(
            "SELECT pg_catalog.current_database()::text, COALESCE(pg_catalog.sum(c.relpages), 0)::bigint
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not read the sizes of the tables", source))?;
    let (database, pages): (String, i64) = (row.get(0), row.get(1));
    let predecessor = match Repository::open(&settings.repo) {
        Ok(repository) => space::predecessor(&repository, &database, settings.codec)?,
        Err(_) => None,
    };
    Ok(space::estimate(pages.unsigned_abs() * space::BLOCK_BYTES, settings.codec, predecessor.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_for_a_snapshot_is_told_with_the_next_step() {
        assert!(enough("r".to_owned(), 10, 10).is_ok());
        let error = enough("r".to_owned(), 9, 10).expect_err("it is too little");
        assert_eq!(error.hint(), Some("Free some space, or choose another disk with --repo."));
    }
}
