# Private clusters: created, started, stopped. Read after common.sh, with `here` set to a place.
# shellcheck shell=bash disable=SC2154

# as_account command…: runs it under the account that servers run under.
as_account() {
    (cd "$here" && exec env HOME="$here" LC_ALL=C.UTF-8 "${unprivileged[@]}" "$@")
}

postgres_program() { printf '%s/%s\n' "$("$here/pg_config" --bindir)" "$1"; }

# Makes $here/data, if it is not there yet. Only the account and root get at the sockets, so
# whoever reaches one may be any role.
create_cluster() {
    mkdir -p "$here/data" "$here/socket"
    chmod 700 "$here/data" "$here/socket"
    [ "$(id -u)" -ne 0 ] || chown "$account" "$here/data" "$here/socket"
    [ ! -e "$here/data/PG_VERSION" ] || return 0
    as_account "$(postgres_program initdb)" --pgdata="$here/data" --encoding=UTF8 --locale=C.UTF-8 \
        --username=postgres --auth=trust --no-instructions >"$here/initdb.log" 2>&1 ||
        { cat "$here/initdb.log" >&2; die "the cluster could not be created"; }
    printf "include_if_exists '%s'\n" "$here/cluster.conf" >>"$here/data/postgresql.conf"
}

# start_cluster: reads further settings from its standard input.
start_cluster() {
    { printf "listen_addresses = ''\nport = 5432\nunix_socket_directories = '%s'\n" "$here/socket"; cat; } >"$here/cluster.conf"
    : >>"$here/postgresql.log"
    [ "$(id -u)" -ne 0 ] || chown "$account" "$here/postgresql.log"
    as_account "$(postgres_program pg_ctl)" start --wait --silent --pgdata="$here/data" --log="$here/postgresql.log" ||
        { tail -n 20 "$here/postgresql.log" >&2; die "PostgreSQL does not start" "Its log is $here/postgresql.log."; }
}

cluster_is_running() {
    [ -x "$here/pg_config" ] &&
        as_account "$(postgres_program pg_ctl)" status --pgdata="$here/data" >/dev/null 2>&1
}

stop_cluster() {
    ! cluster_is_running ||
        as_account "$(postgres_program pg_ctl)" stop --wait --silent --mode=fast --pgdata="$here/data"
}

# sql [psql option…]: psql as superuser, which stops at the first error.
sql() {
    "$(postgres_program psql)" -X -q -v ON_ERROR_STOP=1 -U postgres -h "$here/socket" "$@"
}
