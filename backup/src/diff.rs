//! `backup diff A B`: what differs between two of snapshots, live databases and SQLite files.
//!
//! sides opened, each in one state → schemas as text, and everything that is neither → which table with which → rows by their hashes,
//! and the first that differ by key and column. Two snapshots need no server: what is equal is known from the manifests.
//!
//! What must never happen: a difference that is not told, code of an owner that runs with our rights, memory that grows with a table.

pub mod compare;
pub mod file;
pub mod hashes;
pub mod live;
pub mod pairs;
pub mod report;
pub mod rows;
pub mod schema;
pub mod side;
pub mod state;
pub mod stored;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use common::{
    ErrorKind, QualifiedName, Result,
    cli::{Output, Settings, args::parse_duration},
    postgres::exported_snapshot::LockWait,
    snapshot::pattern::Pattern,
};
use sqlite::{
    choices::{self, ColumnName, Map, Meanings},
    target::EpochUnit,
};

use compare::{Depth, Found, REMEMBERED, Side};
use pairs::{Choices, Planned, Tables};
use report::{Difference, TableChange};
use schema::Change;
use state::State;

/// Arguments of `backup diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The first side: a snapshot (an id, a unique start of one, latest, latest:tag=value), the URL or key=value string of a live
    /// database, or a SQLite file (app.sqlite3, sqlite:///app.db)
    #[arg(value_name = "A")]
    pub a: String,
    /// The second side
    #[arg(value_name = "B")]
    pub b: String,
    /// Compare only these tables; may be repeated
    #[arg(short = 't', long = "table", value_name = "PATTERN")]
    pub tables: Vec<String>,
    /// Rows that are told of each table that differs, by key and column; 0: only which tables differ
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub first: usize,
    /// Compare again and again, with this pause, until interrupted; the exit code is that of the last round
    #[arg(long, value_name = "TIME", value_parser = parse_duration, num_args = 0..=1, default_missing_value = "60s")]
    pub watch: Option<Duration>,
    /// How long one attempt waits for the table locks of a live database [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub lock_timeout: Option<Duration>,
    /// Further attempts to get the locks [default: 30]
    #[arg(long, value_name = "N")]
    pub lock_retries: Option<u32>,
    /// SQLite's table stands for another table, its column for another column; may be repeated
    #[arg(long, value_name = "A=B", value_parser = choices::map, help_heading = "With a SQLite file")]
    pub map: Vec<Map>,
    /// Leave a table of SQLite out; may be repeated
    #[arg(long, value_name = "TABLE", value_parser = choices::table, help_heading = "With a SQLite file")]
    pub skip_table: Vec<String>,
    /// Leave a column of SQLite out; may be repeated
    #[arg(long, value_name = "TABLE.COLUMN", value_parser = choices::column, help_heading = "With a SQLite file")]
    pub skip_column: Vec<ColumnName>,
    /// What numbers mean as dates: seconds, milliseconds, microseconds, nanoseconds or julian; may be repeated
    #[arg(long, value_name = "[TABLE.COLUMN=]UNIT", value_parser = choices::epoch, help_heading = "With a SQLite file")]
    pub epoch: Vec<(Option<ColumnName>, EpochUnit)>,
    /// The time zone of times that have no offset, such as Europe/Berlin or UTC
    #[arg(long, value_name = "ZONE", value_parser = choices::time_zone, help_heading = "With a SQLite file")]
    pub timezone: Option<chrono_tz::Tz>,
    /// An empty text is NULL, where the column takes NULL
    #[arg(long, help_heading = "With a SQLite file")]
    pub null_empty_strings: bool,
}

/// What is compared, and how.
pub(crate) struct Question<'a> {
    args: &'a DiffArgs,
    settings: &'a Settings,
    patterns: Vec<Pattern>,
    choices: Choices,
    wait: LockWait,
}

/// Differences of the round before, by table.
pub(crate) type Remembered = HashMap<String, HashSet<u128>>;

/// Runs `backup diff`.
///
/// # Errors
/// A side can't be read.
pub async fn run(args: &DiffArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let patterns = args.tables.iter().map(|pattern| Pattern::table(pattern)).collect::<Result<_>>()?;
    let question = Question {
        args,
        settings,
        patterns,
        choices: Choices {
            maps: args.map.clone(),
            skip_tables: args.skip_table.clone(),
            skip_columns: args.skip_column.clone(),
            meanings: Meanings {
                epochs: args.epoch.clone(),
                timezone: args.timezone,
                null_empty_strings: args.null_empty_strings,
            },
        },
        wait: LockWait { timeout: settings.lock_timeout, retries: settings.lock_retries },
    };
    let sides = [side::Named::read(&args.a)?, side::Named::read(&args.b)?];
    question.check(&sides)?;
    compare_sides(&question, sides, output).await.map_err(undecided)
}

/// The exit code 1 means that something differs, so no failure may have it.
fn undecided(error: common::Error) -> common::Error {
    if error.kind() == ErrorKind::Failed { error.with_kind(ErrorKind::Damaged) } else { error }
}

async fn compare_sides(question: &Question<'_>, sides: [side::Named; 2], output: &Output) -> Result<u8> {
    match question.args.watch {
        Some(pause) => watch::run(question, sides, pause, output).await,
        None => {
            let (difference, _) = Box::pin(round(question, &sides, None, output)).await?;
            if output.is_json() {
                output.document(&difference)?;
            } else {
                tell(&difference, output);
                output.data(&difference.text(output))?;
            }
            Ok(u8::from(!difference.equal))
        }
    }
}

/// What a person should know beside the difference.
pub(crate) fn tell(difference: &Difference, output: &Output) {
    for line in &difference.notes {
        output.say(&format!("note: {line}"));
    }
    for line in &difference.partial {
        output.say(&format!("note: {line}: what it left out shows as a difference"));
    }
}

/// Compares once.
pub(crate) async fn round(
    question: &Question<'_>,
    sides: &[side::Named; 2],
    before: Option<&Remembered>,
    output: &Output,
) -> Result<(Difference, Remembered)> {
    let progress = output.progress();
    // Who reads a snapshot holds the lock from before it looks for it: nobody deletes it in between.
    let (opened, _lock) = side::open(question, sides, &progress).await?;
    let [a, b] = &opened;
    let mut difference = frame(question, a, b)?;
    let tables = plan(question, a, b)?;
    difference.notes.extend(tables.notes);
    progress.phase("comparing rows", None);
    let mut remembered = Remembered::new();
    let mut left = if question.args.watch.is_some() { REMEMBERED } else { 0 };
    for planned in tables.tables {
        for column in &planned.not_compared {
            difference.notes.push(format!("{}.{column} is not compared", planned.name));
        }
        let Some(pair) = &planned.pair else {
            difference.tables.push(alone(&planned));
            continue;
        };
        let earlier = before.map(|before| before.get(&planned.name).cloned().unwrap_or_default());
        let depth = Depth { first: question.first(a, b), remembered: left };
        let found = match compare::compare([a, b], pair, depth, earlier.as_ref(), &progress).await {
            Ok(found) => found,
            Err(error) => return Err(explain(&opened, error).await),
        };
        left = left.saturating_sub(found.identities.len());
        let has_columns = planned.only.iter().all(Vec::is_empty);
        if found.is_equal && has_columns {
            difference.equal_tables += 1;
            difference.equal_rows = difference.equal_rows.saturating_add(found.rows[0]);
        } else {
            difference.tables.push(changed(&planned, &found, depth, earlier.as_ref()));
        }
        remembered.insert(planned.name, found.identities);
    }
    progress.done();
    close(opened).await?;
    difference.equal =
        difference.tables.is_empty() && difference.schema_changes.is_empty() && difference.values.is_empty();
    Ok((difference, remembered))
}

async fn explain(sides: &[Side; 2], error: common::Error) -> common::Error {
    let mut error = error;
    for side in sides {
        if let Side::Live(live) = side {
            error = live.explain(error).await;
        }
    }
    error
}

/// Both sides were read: now they have to have been what they seemed.
async fn close(sides: [Side; 2]) -> Result<()> {
    for side in sides {
        match side {
            Side::Live(live) => live.close().await?,
            Side::File(file) => file.close()?,
            Side::Snapshot(_) => {}
        }
    }
    Ok(())
}

/// Everything but the rows.
fn frame(question: &Question<'_>, a: &Side, b: &Side) -> Result<Difference> {
    let mut difference = Difference {
        a: label(a),
        b: label(b),
        round: None,
        at: None,
        partial: Vec::new(),
        equal: false,
        schema_changes: Vec::new(),
        tables: Vec::new(),
        equal_tables: 0,
        equal_rows: 0,
        values: Vec::new(),
        notes: Vec::new(),
        of_what: "content of {tables}",
    };
    for state in [a, b].into_iter().filter_map(state_of) {
        let filters = state.partial.as_ref();
        difference.partial.extend(filters.map(|filters| format!("{} is PARTIAL ({filters})", state.label)));
    }
    if let (Some(state_a), Some(state_b)) = (state_of(a), state_of(b)) {
        if question.patterns.is_empty() {
            difference.schema_changes = schema::compare(&state_a.schema, &state_b.schema);
            difference.values = values(state_a, state_b);
            difference.of_what = "schema, content of {tables}, sequences, settings";
        } else {
            let mut tables: Vec<QualifiedName> = [state_a, state_b].into_iter().flat_map(names).collect();
            tables.sort();
            tables.dedup();
            difference.schema_changes = schema::compare_of(&state_a.schema, &state_b.schema, &tables);
            difference.of_what = "definition and content of {tables}";
        }
        if state_a.pg_dump_major != state_b.pg_dump_major
            && !state_a.schema.is_empty()
            && !state_b.schema.is_empty()
        {
            difference.notes.push(format!(
                "the schemas were dumped by pg_dump {} and {}, which may word the same object in two ways",
                state_a.pg_dump_major, state_b.pg_dump_major
            ));
        }
        if question.first(a, b) < question.args.first {
            difference.notes.push(format!(
                "the sides have the encodings {} and {}: tables that differ are named, and not their rows",
                state_a.encoding, state_b.encoding
            ));
        }
    }
    Ok(difference)
}

/// Of two databases that live in two places, the name and the server are no difference: it was asked for both.
fn values(a: &State, b: &State) -> Vec<state::ValueChange> {
    let mut values = state::compare_values(&a.values, &b.values);
    if a.is_live || b.is_live {
        values.retain(|change| !["database name", "server"].contains(&change.what.as_str()));
    }
    values
}

fn names(state: &State) -> Vec<QualifiedName> {
    let stored = state.tables.iter().map(|stored| stored.table.name.clone());
    stored.chain(state.partitioned.iter().map(|table| table.name.clone())).collect()
}

fn label(side: &Side) -> String {
    match side {
        Side::File(file) => file.label.clone(),
        Side::Snapshot(side) => side.state.label.clone(),
        Side::Live(side) => side.state.label.clone(),
    }
}

fn state_of(side: &Side) -> Option<&State> {
    match side {
        Side::Snapshot(side) => Some(&side.state),
        Side::Live(side) => Some(&side.state),
        Side::File(_) => None,
    }
}

fn plan(question: &Question<'_>, a: &Side, b: &Side) -> Result<Tables> {
    question.check_names([a, b])?;
    let (choices, patterns) = (&question.choices, &question.patterns);
    let visible = |side: &Side, schema: &str| match side {
        Side::Live(live) => live.visible.contains(schema),
        _ => schema == "public",
    };
    let tables = match (a, b) {
        (Side::File(one), Side::File(two)) => pairs::of_sqlite(&one.schema, &two.schema, choices, patterns),
        (Side::File(file), side) | (side, Side::File(file)) => {
            let number = usize::from(matches!(b, Side::File(_)));
            let Some(state) = state_of(side) else { return Ok(Tables::default()) };
            let is_visible = |schema: &str| visible(side, schema);
            pairs::with_sqlite(state, &file.schema, number, choices, patterns, is_visible)
        }
        _ => match (state_of(a), state_of(b)) {
            (Some(a), Some(b)) => pairs::of_postgres(a, b),
            _ => Tables::default(),
        },
    };
    Ok(tables)
}

fn alone(planned: &Planned) -> TableChange {
    let known = |side: usize| planned.known[side];
    TableChange {
        table: planned.name.clone(),
        change: if planned.has[0] { Change::Removed } else { Change::Added },
        rows_before: known(0).map(|known| known.0),
        rows_after: known(1).map(|known| known.0),
        bytes_before: known(0).map(|known| known.1),
        bytes_after: known(1).map(|known| known.1),
        columns_differ: false,
        columns_only_in_a: Vec::new(),
        columns_only_in_b: Vec::new(),
        rows_equal: None,
        only_in_a: None,
        only_in_b: None,
        differing: None,
        settled: None,
        differences: Vec::new(),
    }
}

fn changed(planned: &Planned, found: &Found, depth: Depth, before: Option<&HashSet<u128>>) -> TableChange {
    let looked = found.is_equal || depth.first > 0;
    let [only_a, only_b] = &planned.only;
    TableChange {
        table: planned.name.clone(),
        change: Change::Changed,
        rows_before: Some(found.rows[0]),
        rows_after: Some(found.rows[1]),
        bytes_before: planned.known[0].map(|known| known.1),
        bytes_after: planned.known[1].map(|known| known.1),
        columns_differ: !(only_a.is_empty() && only_b.is_empty()),
        columns_only_in_a: only_a.clone(),
        columns_only_in_b: only_b.clone(),
        rows_equal: Some(found.is_equal),
        only_in_a: looked.then_some(found.only_a),
        only_in_b: looked.then_some(found.only_b),
        differing: looked.then_some(found.differing),
        settled: before.filter(|_| looked).map(|before| found.identities.intersection(before).count() as u64),
        differences: found.first.clone(),
    }
}
