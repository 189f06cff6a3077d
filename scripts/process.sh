# Background processes of `make run`: started, recognised and ended by pid, and the ports they want.
# shellcheck shell=bash disable=SC2034,SC2154

# own_pid NAME: prints the pid of the program that we started, if it still runs. A pid may have gone
# to somebody else's process, so it must be one that runs our own copy of the program.
own_pid() {
    local pid
    pid=$(cat "$root/.run/$1.pid" 2>/dev/null) || return 1
    case $(readlink "/proc/$pid/exe") in
    "$here/bin/"*) printf '%s\n' "$pid" ;;
    *) return 1 ;;
    esac
}

# start_process NAME command…: in a session of its own, so that it outlives this terminal.
start_process() {
    local name=$1
    shift
    (
        cd "$here" || exit
        HOME=$here exec setsid "${unprivileged[@]}" "$@" </dev/null >>"$root/.run/$name.log" 2>&1
    ) &
    printf '%s\n' "$!" >"$root/.run/$name.pid"
}

stop_process() {
    local pid
    if pid=$(own_pid "$1"); then
        kill "$pid"
        # Longer than the shim's own grace for requests that are under way.
        wait_until 40 "$1 to end" process_is_gone "$pid" || kill -KILL "$pid"
        say "stopped $1"
    fi
    rm -f "$root/.run/$1.pid"
}

process_is_gone() { ! kill -0 "$1" 2>/dev/null; }

# wait_until SECONDS WHAT command…: until the command succeeds.
wait_until() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            printf 'waited in vain for %s\n' "$what" >&2
            return 1
        fi
        sleep 0.1
    done
}

# The ports of `make run`, and the variables that choose others.
shim_port=${SHIM_PORT:-8080}
shim_ops_port=${SHIM_OPS_PORT:-9464}
sandbox_port=${SANDBOX_PORT:-4010}

# check_ports: ends the script unless each of them is free, or in the hands of what we started.
check_ports() {
    check_port "$shim_port" SHIM_PORT
    check_port "$shim_ops_port" SHIM_OPS_PORT
    check_port "$sandbox_port" SANDBOX_PORT
    [ "$(printf '%s\n' "$shim_port" "$shim_ops_port" "$sandbox_port" | sort -un | wc -l)" = 3 ] ||
        die "SHIM_PORT, SHIM_OPS_PORT and SANDBOX_PORT are not three ports: $shim_port, $shim_ops_port, $sandbox_port"
}

check_port() {
    local inode pid holder=
    { [[ $1 =~ ^[1-9][0-9]{0,4}$ ]] && [ "$1" -le 65535 ]; } || die "$2=$1 is not a port" "A port is a number from 1 to 65535."
    for inode in $(listeners "$1"); do
        pid=$(pid_of_socket "$inode")
        [ -n "$pid" ] || { holder=" by a process that cannot be seen from here"; continue; }
        is_ours "$pid" || holder=" by $(name_of "$pid") (pid $pid)"
    done
    [ -z "$holder" ] || die "port $1 is taken$holder" "End that process, or choose another port: make run $2=…"
}

# listeners PORT: prints the inodes of sockets that listen there, on loopback or on every address. They come from the
# kernel's own list (state 0A is listening), since a bare Debian has no ss.
listeners() {
    awk -v port=":$(printf '%04X' "$1")" '
        BEGIN {
            zeros = "00000000"
            taken["0100007F" port]; taken[zeros port]
            taken[zeros zeros zeros zeros port]; taken[zeros zeros "FFFF0000" "0100007F" port]
        }
        $4 == "0A" && $2 in taken { print $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# Nothing, if its process belongs to another account.
pid_of_socket() {
    { find /proc/[0-9]*/fd -lname "socket:\[$1\]" -print -quit 2>/dev/null || true; } | cut -d / -f 3
}

is_ours() { [ "$(own_pid shim)" = "$1" ] || [ "$(own_pid sandbox)" = "$1" ]; }

# The kernel cuts a process's own name after 15 characters.
name_of() {
    local program
    program=$(readlink "/proc/$1/exe") || program=$(cat "/proc/$1/comm")
    basename "${program% (deleted)}"
}

# http PORT, with a request on standard input: prints the answer. A bare Debian has no curl.
http() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        cat >&3
        timeout 10 cat <&3
    ) 2>/dev/null
}
