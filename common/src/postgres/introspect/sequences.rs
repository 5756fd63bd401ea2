//! Where sequences stand.

use std::collections::{HashMap, HashSet};

use super::failed;
use crate::{
    Error, QualifiedName, Result,
    catalog::Sequence,
    postgres::{Client, Row, names, sql},
};

/// Where every sequence stands now. Sequences are not transactional: read them after the data.
pub async fn sequences(client: &Client) -> Result<Vec<Sequence>> {
    sequences_of(client, None).await
}

/// Like [`sequences`], of those with these oids only: the role may not read others.
pub async fn sequences_of(client: &Client, oids: Option<&HashSet<u32>>) -> Result<Vec<Sequence>> {
    /// Sequences per statement: one round trip for most databases, and no statement of unbounded length.
    const BATCH: usize = 250;
    let mut rows = client.query(sql::SEQUENCES, &[]).await.map_err(failed("sequences"))?;
    rows.retain(|row| oids.is_none_or(|oids| oids.contains(&row.get::<_, u32>(0))));
    let mut sequences = Vec::with_capacity(rows.len());
    for batch in rows.chunks(BATCH) {
        let mut values = sequence_values(client, batch).await?;
        for row in batch {
            let oid: u32 = row.get(0);
            let name = QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2));
            let Some((last_value, is_called)) = values.remove(&oid) else {
                return Err(names::changed(format!(
                    "{} is another object than the sequence that it was",
                    name.short()
                )));
            };
            sequences.push(Sequence { oid, name, last_value, is_called, increment: row.get(3) });
        }
    }
    Ok(sequences)
}

/// Where these sequences stand, by their oids; one is left out whose name means another object now.
///
/// To read a sequence by its name is a query, which is planned, and the name may mean a table or a view of somebody else's by
/// then. PostgreSQL 18 tells by the oid alone. Before, it does so of sequences that have been used, and of the others in
/// schemas of others there is no way but the name.
async fn sequence_values(client: &Client, batch: &[Row]) -> Result<HashMap<u32, (i64, bool)>> {
    let by_oid = |is_told: &dyn Fn(&Row) -> bool| -> Vec<u32> {
        batch.iter().filter(|row| is_told(row)).map(|row| row.get(0)).collect()
    };
    let tells_all = batch.first().is_some_and(|row| row.get("tells_all"));
    let (statement, oids) = if tells_all {
        (sql::SEQUENCE_DATA, by_oid(&|_| true))
    } else {
        (sql::SEQUENCE_LAST_VALUES, by_oid(&|row| !row.get::<_, bool>("is_ours")))
    };
    let mut values = HashMap::with_capacity(batch.len());
    if !oids.is_empty() {
        let told = client.query(statement, &[&oids]).await.map_err(of_sequences)?;
        values.extend(told.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))));
    }
    let selects: Vec<String> = batch
        .iter()
        .filter(|row| !values.contains_key(&row.get::<_, u32>(0)))
        .map(|row| {
            let name = QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2));
            format!("SELECT tableoid, last_value, is_called FROM {name}")
        })
        .collect();
    if !selects.is_empty() {
        let statement = selects.join(" UNION ALL ");
        let told = client.query(&statement, &[]).await.map_err(of_sequences)?;
        values.extend(told.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))));
    }
    Ok(values)
}

fn of_sequences(source: tokio_postgres::Error) -> Error {
    let error = failed("the values of sequences")(source);
    match error.sqlstate() {
        Some("42501") => error.with_kind(crate::ErrorKind::Refused).with_hint(
            "Where every sequence stands is part of the state that is kept: GRANT SELECT ON ALL SEQUENCES IN SCHEMA … TO the role, or make it \
             a member of pg_read_all_data.",
        ),
        _ => error,
    }
}
