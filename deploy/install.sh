#!/bin/sh
# Installs backup, restore and safe-run from a release, after its SHA-256 sum was compared.
#
#   sh install.sh [--from FOLDER|URL] [--prefix DIR] [--sha256 SUM]
#   sh install.sh --uninstall [--prefix DIR]
#
#   --from      where the release lies; the folder of this script unless given
#   --prefix    /usr/local unless given
#   --sha256    the sum that the archive must have, which you got another way: SHA256SUMS beside the archive tells a damaged
#               file, but whoever could change the archive could change that as well
#
# The names of the installed files are kept in PREFIX/share/safe-run/installed; --uninstall removes these and nothing else.
set -eu
umask 022

die() { printf 'install: %s\n' "$*" >&2; exit 1; }
sum_of() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}

from=$(dirname "$0") prefix=/usr/local wanted='' uninstall=''
while [ $# -gt 0 ]; do
    case $1 in
        --uninstall) uninstall=1; shift ;;
        --from | --prefix | --sha256)
            [ $# -ge 2 ] || die "$1 needs a value"
            case $1 in --from) from=$2 ;; --prefix) prefix=$2 ;; --sha256) wanted=$2 ;; esac
            shift 2 ;;
        *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d' >&2; exit 2 ;;
    esac
done
list=$prefix/share/safe-run/installed

if [ -n "$uninstall" ]; then
    [ -f "$list" ] || die "$list is not there: nothing was installed under $prefix by this script."
    while IFS= read -r file; do rm -f "$prefix/$file"; done <"$list"
    rm -f "$list"
    # The folders that were made for them, where nothing else is in them.
    for folder in "$prefix/share/safe-run" "$prefix/share/doc/safe-run"; do
        [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} \; 2>/dev/null || :
    done
    echo "removed; snapshots and settings are where they were"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
get() {
    case $from in
        http://*) die "$from is not encrypted: use https://" ;;
        https://*)
            if command -v curl >/dev/null 2>&1; then curl --fail --silent --show-error --location --proto '=https' -o "$work/$1" "$from/$1"
            else wget -q -O "$work/$1" "$from/$1"; fi || die "could not get $from/$1" ;;
        *) cp "$from/$1" "$work/$1" 2>/dev/null || die "there is no $1 in $from" ;;
    esac
}

[ "$(uname -s)" = Linux ] || die "releases are for Linux; elsewhere: cargo install --path safe-run (and backup, restore)"
get SHA256SUMS
archive=$(sed -n "s/^[0-9a-f]\{64\}  \(safe-run-[A-Za-z0-9.+-]*-linux-$(uname -m)\.tar\.gz\)\$/\1/p" "$work/SHA256SUMS")
[ -n "$archive" ] || die "SHA256SUMS names no archive for Linux on $(uname -m); nothing was installed"
[ "$(printf '%s\n' "$archive" | wc -l)" -eq 1 ] || die "SHA256SUMS names several archives for this machine; nothing was installed"
get "$archive"
listed=$(sed -n "s/^\([0-9a-f]\{64\}\)  $archive\$/\1/p" "$work/SHA256SUMS")
has=$(sum_of "$work/$archive")
[ "$has" = "$listed" ] || die "$archive has the sum $has, but SHA256SUMS says $listed: get it again; nothing was installed"
[ -z "$wanted" ] || [ "$has" = "$wanted" ] || die "$archive has the sum $has, not $wanted: this is not the release you meant; nothing was installed"

mkdir "$work/tree"
tar -xzf "$work/$archive" -C "$work/tree"
cd "$work/tree"/safe-run-*
for program in backup restore safe-run; do
    "bin/$program" --version >/dev/null || die "$program of this release does not run on this machine; nothing was installed"
done
mkdir -p "$prefix/share/safe-run"
find . -type f | sed 's|^\./||' | sort >"$work/installed"
# The list comes first: what an interrupted installation left can be removed by it.
cp "$work/installed" "$list"
while IFS= read -r file; do
    mkdir -p "$prefix/$(dirname "$file")"
    # A program that runs is replaced, not written over.
    cp "$file" "$prefix/$file.new.$$" && mv -f "$prefix/$file.new.$$" "$prefix/$file"
done <"$work/installed"
"$prefix/bin/safe-run" --version
command -v pg_dump >/dev/null 2>&1 || echo "next: PostgreSQL's client programs, which are not here yet (Debian: apt install postgresql-client)"
