# What the scripts share: where things lie, which account runs servers, and how they speak.
# shellcheck shell=bash
# shellcheck disable=SC2034 # some of what is set here is used by the scripts that read it

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
: "${CARGO_TARGET_DIR:?is set by the Makefile: use make}" "${PG_CONFIG:?}"

# The account has to be able to read what is made for it.
umask 022

# What somebody's shell says of servers of theirs does not hold for ours.
for name in "${!PG@}"; do
    case $name in PG_CONFIG | PGRX_*) ;; *) unset "$name" ;; esac
done

# A backtrace would stand in the DETAIL of every error of a server started from this shell.
unset RUST_BACKTRACE

say() { printf '==> %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

# The version is stated in Cargo.toml.
extension_version() { sed -n '/^\[workspace.package\]/,/^$/ s/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml"; }

# profile_directory PROFILE: where cargo puts what it builds with this profile. That of dev has another name.
profile_directory() {
    local name=$1
    [ "$name" != dev ] || name=debug
    printf '%s\n' "$CARGO_TARGET_DIR/$name"
}

# PostgreSQL refuses to run as root, which then borrows the account of Debian's package.
if [ "$(id -u)" -eq 0 ]; then
    account=postgres
    # Unlike runuser, this becomes the program instead of staying as its parent.
    unprivileged=(setpriv --reuid=postgres --regid=postgres --init-groups --)
else
    account=$(id -un)
    unprivileged=()
fi

# place run|test: a directory of our own that the account can reach (a clone below root's home is
# not) and whose sockets stay below the 107 bytes that a socket's path may have.
place() {
    local key directory
    key=$root:$(id -u)
    # Who builds elsewhere tests elsewhere: two builds of one clone do not overwrite each other.
    [ "$1" = run ] || [ "$CARGO_TARGET_DIR" = "$root/target" ] || key=$key:$CARGO_TARGET_DIR
    directory=/var/tmp/twilio_callback-$(printf %s "$key" | cksum | cut -d ' ' -f 1)
    [ -e "$directory" ] || mkdir -m 755 "$directory"
    # Anyone may make names in /var/tmp, so what is there has to be ours.
    if [ -L "$directory" ] || [ ! -O "$directory" ]; then
        die "$directory belongs to somebody else" "Remove it and start again."
    fi
    mkdir -p "$directory/$1" "$root/.run"
    ln -sfn "$directory/$1" "$root/.run/$1"
    printf '%s\n' "$directory/$1"
}
