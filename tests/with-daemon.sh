#!/bin/sh
# with-daemon.sh BIN SMALL COMMAND…: starts a daemon on directories of its own, runs COMMAND with its address appended, and
# cleans up. NETNS=PATH puts both into a network namespace, such as the one of an engine to compare with.
set -eu
bin=$(realpath "$1") small=$(realpath "$2")
shift 2
dir=$(mktemp -d /tmp/cleat-XXXXXX)
enter=
[ -z "${NETNS:-}" ] || enter="nsenter --net=$NETNS"
PATH=$small:$bin:$PATH
export PATH
$enter cleatd --root "$dir/root" --state "$dir/run" -H "unix://$dir/cleat.sock" >"$dir/log" 2>&1 &
pid=$!
stop() {
  cleat -H "unix://$dir/cleat.sock" ps -aq 2>/dev/null | xargs -r cleat -H "unix://$dir/cleat.sock" rm -fv >/dev/null 2>&1 || true
  kill "$pid" 2>/dev/null && wait "$pid" || true
  rm -rf "$dir"
}
trap stop EXIT
until [ -S "$dir/cleat.sock" ]; do kill -0 "$pid" || { cat "$dir/log"; exit 1; }; sleep 0.05; done
$enter "$@" "unix://$dir/cleat.sock"
