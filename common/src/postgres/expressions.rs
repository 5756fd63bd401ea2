//! What an expression that somebody stored calls, read from its tree: pieces of catalog queries, of which each stands here alone. What
//! PostgreSQL brought does not stand in `pg_depend`, and so the trees themselves are read.
//!
//! The rule is closed: what is not known to be harmless counts as code.

/// The types that are directly in the type `t` (an alias of `pg_type`), as a subquery with one column: elements, the base of a domain,
/// the bounds of a range or multirange, the fields of a composite type.
#[macro_export]
macro_rules! types_within {
    () => {
        "(SELECT t.typelem WHERE t.typelem <> 0
     UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
     UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid OR r.rngmultitypid = t.oid
     UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
      WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)"
    };
}

/// Where a tree names a type, for `regexp_matches`. A constant has been read already, when the expression was made.
macro_rules! named_type {
    () => {
        r":(?!const)[a-z_]*[tT]yp(?:e|[iI]d|e[iI]d) (\d+)"
    };
}

/// One step from an item `i` (columns `tree` and `type`, of which one is set: NULL or 0) to what is evaluated with it, as a subquery with
/// the columns of an item and the CHECK constraint that a tree is of, or 0: the types that a tree converts to, the CHECK constraints of
/// domains, and what lies in arrays, ranges and composite types. The input function of a type evaluates all of them.
pub const EVALUATED_WITH_IT: &str = concat!(
    "(SELECT NULL::text, m[1]::pg_catalog.oid, 0::pg_catalog.oid FROM pg_catalog.regexp_matches(i.tree, '",
    named_type!(),
    "', 'g') m WHERE m[1]::bigint >= 16384
     UNION ALL SELECT k.conbin::text, 0::pg_catalog.oid, k.oid FROM pg_catalog.pg_constraint k
      WHERE i.type <> 0 AND k.contypid = i.type AND k.contype = 'c'
     UNION ALL SELECT NULL, w.typ, 0::pg_catalog.oid FROM pg_catalog.pg_type t, LATERAL ",
    types_within!(),
    " w(typ) WHERE i.type <> 0 AND t.oid = i.type AND w.typ >= 16384)"
);

/// Whether the tree `i.tree` speaks of PostgreSQL's own types alone, constants included.
pub const HAS_PLAIN_TYPES: &str = r"NOT EXISTS (
   SELECT FROM pg_catalog.regexp_matches(i.tree, ':[a-z_]*[tT]yp(?:e|[iI]d|e[iI]d) (\d+)', 'g') m WHERE m[1]::bigint >= 16384)";

/// Stable functions of PostgreSQL that give a value and nothing else, to every role the same: the time, its forms, and what formats values.
/// Not among them: what tells a superuser more than others (`current_setting`), runs a query (`query_to_xml`), or reads text as a
/// value of any type (`domain_in`, `jsonb_populate_record`).
pub const HARMLESS_STABLE: &str = "'now', 'transaction_timestamp', 'statement_timestamp', 'current_schema', 'current_database', \
     'session_user', 'current_user', 'getpgusername', 'version', 'pg_backend_pid', 'pg_client_encoding', 'pg_typeof', 'pg_get_userbyid', \
     'pg_trigger_depth', 'pg_my_temp_schema', 'inet_client_addr', 'inet_client_port', 'inet_server_addr', 'inet_server_port', \
     'txid_current', 'txid_current_if_assigned', 'txid_current_snapshot', 'pg_current_xact_id', 'pg_current_snapshot', \
     'to_char', 'to_date', 'to_timestamp', 'to_number', 'date_part', 'extract', 'date_trunc', 'timezone', 'age', 'overlaps', 'date', \
     'time', 'timetz', 'timestamp', 'timestamptz', 'make_timestamptz', 'timestamptz_pl_interval', 'timestamptz_mi_interval', \
     'interval_pl_timestamptz', 'date_add', 'date_subtract', 'timestamp_lt_timestamptz', 'timestamp_le_timestamptz', \
     'timestamp_eq_timestamptz', 'timestamp_gt_timestamptz', 'timestamp_ge_timestamptz', 'timestamp_ne_timestamptz', \
     'timestamptz_lt_timestamp', 'timestamptz_le_timestamp', 'timestamptz_eq_timestamp', 'timestamptz_gt_timestamp', \
     'timestamptz_ge_timestamp', 'timestamptz_ne_timestamp', 'date_lt_timestamptz', 'date_le_timestamptz', 'date_eq_timestamptz', \
     'date_gt_timestamptz', 'date_ge_timestamptz', 'date_ne_timestamptz', 'timestamptz_lt_date', 'timestamptz_le_date', \
     'timestamptz_eq_date', 'timestamptz_gt_date', 'timestamptz_ge_date', 'timestamptz_ne_date', 'concat', 'concat_ws', 'format', \
     'array_to_string', 'money', 'numeric', 'cash_in', 'to_tsvector', \
     'to_tsquery', 'plainto_tsquery', 'phraseto_tsquery', 'websearch_to_tsquery', 'json_to_tsvector', 'jsonb_to_tsvector', 'ts_match_tt', \
     'ts_match_tq', 'get_current_ts_config', 'jsonb_path_exists_tz', 'jsonb_path_match_tz', 'jsonb_path_query_array_tz', \
     'jsonb_path_query_first_tz', 'convert', 'convert_from', 'convert_to', 'length', 'xml', 'xml_is_well_formed', 'enum_first', \
     'enum_last', 'enum_range', 'format_type', 'current_schemas', 'system_user', 'getdatabaseencoding'";

/// Functions of PostgreSQL that turn any value into JSON or a text, by a cast that the owner of its type may have made: harmless where
/// [`HAS_PLAIN_TYPES`].
pub const CONVERTS_ANY: &str = "'quote_literal', 'quote_nullable', 'textanycat', 'anytextcat', 'to_json', 'to_jsonb', 'row_to_json', 'array_to_json', 'json_build_array', 'json_build_object', \
     'jsonb_build_array', 'jsonb_build_object'";

/// Kinds of nodes that compare or convert whole rows, or whatever a value is, by what its type says, under the names of all major versions.
pub const BY_TYPE_NODES: &str = r"\{(ROWCOMPARE|ROWCOMPAREEXPR|MINMAX|MINMAXEXPR|CONVERTROWTYPEEXPR|JSONCONSTRUCTOREXPR|JSONEXPR|JSONVALUEEXPR) ";
