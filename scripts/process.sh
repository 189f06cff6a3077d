# Background processes of `make run`: started, recognised and ended by pid, and the ports they want.
# shellcheck shell=bash disable=SC2154

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

# check_port PORT VARIABLE: ends the script if somebody listens on the port, and says who.
check_port() {
    local inodes holder
    # The kernel's own list (state 0A is listening), since a bare Debian has no ss.
    inodes=$(awk -v port=":$(printf '%04X' "$1")\$" '$4 == "0A" && $2 ~ port { print $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null)
    [ -n "$inodes" ] || return 0
    holder=$(holder_of "$inodes")
    die "port $1 is taken${holder:+ by $holder}" \
        "End that process, or choose another port: make run $2=…"
}

holder_of() {
    local inode descriptor pid
    for inode in $1; do
        descriptor=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" -print -quit 2>/dev/null || true)
        pid=${descriptor#/proc/}
        pid=${pid%%/*}
        [ -z "$pid" ] || { printf '%s (pid %s)\n' "$(cat "/proc/$pid/comm")" "$pid"; return; }
    done
}

# http PORT, with a request on standard input: prints the answer. A bare Debian has no curl.
http() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        cat >&3
        timeout 10 cat <&3
    ) 2>/dev/null
}
