# Sourced by the scripts next door: messages, and background programs that
# only the one who started them ends. The caller sets $me (its name in
# messages) and $dir (where pid files and logs go).
# shellcheck shell=sh disable=SC2154

say() { echo "$me: $*" >&2; }
die() { code=$1; shift; say "$*"; exit "$code"; }
have() { command -v "$1" >/dev/null 2>&1; }
limit() { if have timeout; then timeout "$@"; else shift; "$@"; fi; }
die_with_log() { say "$1; the end of $2:"; tail -n 15 "$2" >&2; exit "${3:-1}"; }

# runs <pid file> <program>: prints the pid if it is that program. The name is
# compared because after a crash or reboot the pid may be someone else's; a
# zombie, which an init that reaps nobody leaves behind, has ended.
runs() {
  pid=$(cat "$1" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] &&
    ! grep -qs '^State:.Z' "/proc/$pid/status" && echo "$pid"
}

ours() { runs "$dir/$1.pid" "$1"; }

# start <program> [argument…]: in a session of its own, so that neither Ctrl-C
# nor the end of CI's shell reaches it, and holding neither our stdout (a
# caller's $(…) would never end) nor the caller's lock on descriptor 9.
start() {
  # shellcheck disable=SC2016 # for the inner shell
  setsid sh -c 'echo $$ >"$1"; shift; exec "$@"' sh "$dir/$1.pid" "$@" \
    </dev/null >"$dir/$1.log" 2>&1 9>&- &
}

# stop <program>: asks it to end and waits until it has. Never kill -9: it may
# be writing what the next start needs.
stop() {
  if pid=$(ours "$1"); then
    kill "$pid"
    left=30 # dockerd gives containers 15 s first
    while [ "$(ours "$1")" = "$pid" ]; do
      [ $((left -= 1)) -ge 0 ] || die 1 "$1 (pid $pid) does not end; see $dir/$1.log"
      sleep 1
    done
    say "ended $1 (pid $pid)"
  fi
  rm -f "$dir/$1.pid"
}

# wait_for <check> <program> <seconds>: until the check holds; a program that
# died in the meantime is not waited for.
wait_for() {
  left=$3
  until "$1"; do
    sleep 1
    if [ $((left -= 1)) -le 0 ] || ! ours "$2" >/dev/null; then
      die_with_log "$2 did not come up" "$dir/$2.log"
    fi
  done
}
