# The server that the extension is built for and installed into: that of PG_CONFIG. Read after common.sh.
# shellcheck shell=bash disable=SC2154

# Sets `library` and `share`, the directories that the extension's files belong in.
check_server() {
    local version
    version=$("$PG_CONFIG" --version 2>/dev/null) ||
        die "$PG_CONFIG does not run" \
            "PG_CONFIG names the pg_config of PostgreSQL 15. Debian has it: apt-get install postgresql-server-dev-15"
    case $version in
    'PostgreSQL 15.'*) ;;
    *) die "$PG_CONFIG is that of $version" "PG_CONFIG names the pg_config of PostgreSQL 15." ;;
    esac
    library=${DESTDIR-}$("$PG_CONFIG" --pkglibdir)
    share=${DESTDIR-}$("$PG_CONFIG" --sharedir)/extension
}

# may_write directory…: whether this account may create files there, and the directories if they are missing.
may_write() {
    local directory
    for directory; do
        while [ ! -e "$directory" ]; do directory=$(dirname "$directory"); done
        [ -w "$directory" ] || return 1
    done
}

# needs_root TARGET
needs_root() {
    local command="sudo make -C $root $1 PG_CONFIG=$PG_CONFIG"
    [ -z "${DESTDIR-}" ] || command="$command DESTDIR=$DESTDIR"
    [ "$CARGO_TARGET_DIR" = "$root/target" ] || command="$command CARGO_TARGET_DIR=$CARGO_TARGET_DIR"
    die "$(id -un) may not write to $library and $share" "Have root run: $command"
}
