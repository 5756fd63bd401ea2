//! What extensions own, as it is defined: pg_dump writes none of it, and CREATE EXTENSION makes what its script says. What somebody
//! added, replaced or altered since is read when a snapshot is taken and again when it was restored.

use std::collections::BTreeMap;

use super::Client;
use crate::{Error, Result, digest::sha256_hex, snapshot::manifest::ExtensionObjects};

/// Objects of one extension that are stored by name; of more only their number and hash.
const NAMED: usize = 200;

/// Hexadecimal digits of an object's hash: enough to tell that it is another.
const DIGITS: usize = 12;

/// Extension, object, definition; types of arrays and of tables' rows come with what they belong to. Rights, owners and policies are compared elsewhere: pg_dump writes them, or they are told.
const OBJECTS: &str = "
SELECT e.extname::text, pg_catalog.pg_describe_object(d.classid, d.objid, 0),
 pg_catalog.concat_ws(E'\\n', pg_catalog.obj_description(d.objid, c.catalog), CASE c.catalog
  WHEN 'pg_proc' THEN (SELECT CASE p.prokind WHEN 'a' THEN '' ELSE pg_catalog.pg_get_functiondef(p.oid) END FROM pg_catalog.pg_proc p WHERE p.oid = d.objid)
  WHEN 'pg_type' THEN (SELECT pg_catalog.concat_ws(E'\\n', pg_catalog.format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault,
      (SELECT pg_catalog.string_agg(l.enumlabel, ',' ORDER BY l.enumsortorder) FROM pg_catalog.pg_enum l WHERE l.enumtypid = t.oid),
      (SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(k.oid), ',' ORDER BY k.conname) FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid),
      (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)), ',' ORDER BY a.attnum)
         FROM pg_catalog.pg_class r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND NOT a.attisdropped
         WHERE r.oid = t.typrelid AND r.relkind = 'c')) FROM pg_catalog.pg_type t WHERE t.oid = d.objid)
  WHEN 'pg_class' THEN (SELECT pg_catalog.concat_ws(E'\\n', r.relkind, r.relpersistence, r.reloptions::text,
      CASE WHEN r.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(r.oid) END,
      (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
           a.attgenerated, pg_catalog.pg_get_expr(f.adbin, f.adrelid)), ',' ORDER BY a.attname)
         FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
         WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped),
      (SELECT pg_catalog.string_agg(pg_catalog.pg_get_indexdef(i.indexrelid), ',' ORDER BY pg_catalog.pg_get_indexdef(i.indexrelid))
         FROM pg_catalog.pg_index i WHERE i.indrelid = r.oid),
      (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', k.conname, pg_catalog.pg_get_constraintdef(k.oid)), ',' ORDER BY k.conname)
         FROM pg_catalog.pg_constraint k WHERE k.conrelid = r.oid AND k.contype <> 'n'),
      (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', pg_catalog.pg_get_triggerdef(g.oid), g.tgenabled), ',' ORDER BY g.tgname)
         FROM pg_catalog.pg_trigger g WHERE g.tgrelid = r.oid AND NOT g.tgisinternal),
      (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', pg_catalog.pg_get_ruledef(w.oid), w.ev_enabled), ',' ORDER BY w.rulename)
         FROM pg_catalog.pg_rewrite w WHERE w.ev_class = r.oid AND w.rulename <> '_RETURN'),
      (SELECT pg_catalog.concat_ws(' ', s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle)
         FROM pg_catalog.pg_sequence s WHERE s.seqrelid = r.oid)) FROM pg_catalog.pg_class r WHERE r.oid = d.objid)
 END)
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.oid = d.refobjid
CROSS JOIN LATERAL (SELECT c.relname::text AS catalog FROM pg_catalog.pg_class c WHERE c.oid = d.classid) c
WHERE d.deptype = 'e' AND d.objsubid = 0 AND NOT (c.catalog = 'pg_type' AND EXISTS (
  SELECT 1 FROM pg_catalog.pg_type t WHERE t.oid = d.objid AND (EXISTS (SELECT 1 FROM pg_catalog.pg_type e WHERE e.typarray = t.oid)
    OR EXISTS (SELECT 1 FROM pg_catalog.pg_class r WHERE r.oid = t.typrelid AND r.relkind <> 'c'))))
ORDER BY 1, 2, 3";

/// Reads them, by extension; with `is_named` every object by its name, however many there are.
///
/// # Errors
/// The catalog can't be read.
pub async fn read(client: &Client, is_named: bool) -> Result<BTreeMap<String, ExtensionObjects>> {
    let rows = client
        .query(OBJECTS, &[])
        .await
        .map_err(|source| Error::postgres("could not read the objects of extensions", source))?;
    let mut by_extension: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for row in &rows {
        // Dropped while they were listed.
        let Some(object) = row.get::<_, Option<String>>(1) else { continue };
        let definition: String = row.get(2);
        let mut hash = sha256_hex(definition.as_bytes());
        hash.truncate(DIGITS);
        by_extension.entry(row.get(0)).or_default().push((object, hash));
    }
    let found = by_extension.into_iter().map(|(extension, objects)| {
        let lines: Vec<String> = objects.iter().map(|(object, hash)| format!("{object} {hash}")).collect();
        let count = objects.len() as u64;
        let hash = sha256_hex(lines.join("\n").as_bytes());
        let objects =
            if is_named || objects.len() <= NAMED { objects.into_iter().collect() } else { BTreeMap::new() };
        (extension, ExtensionObjects { count, hash, objects })
    });
    Ok(found.collect())
}
