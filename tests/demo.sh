#!/bin/sh
# demo.sh BIN SMALL: shows what cleat promises, on a private root, and cleans up. Exits 0 only if every claim held.
set -eu
bin=$(realpath "$1") small=$(realpath "$2")
tools=$(dirname "$0")/../target/tools
PATH=$small:$bin:$PATH:$tools/usr/bin:$tools/bin
export PATH
dir=$(mktemp -d /tmp/cleat-demo-XXXXXX)
netns=cleat-demo-$$
host=unix://$dir/cleat.sock
client=cleat
command -v docker >/dev/null && client=docker
export DOCKER_HOST="$host" DOCKER_CONFIG="$dir/config"

now() { date +%s%3N; }
say() { printf '%6d ms  %s\n' "$(($(now) - begin))" "$*"; }
fail() { printf '\nFAILED: %s\n' "$*"; tail -20 "$dir/log"; exit 1; }
up() {
  nsenter --net="/run/netns/$netns" cleatd --root "$dir/root" --state "$dir/run" -H "$host" >>"$dir/log" 2>&1 &
  daemon=$!
  until $client version >/dev/null 2>&1; do
    kill -0 "$daemon" 2>/dev/null || fail "the daemon does not start"
    sleep 0.01
  done
}
clean() {
  cleat ps -aq 2>/dev/null | xargs -r cleat rm -f >/dev/null 2>&1 || true
  kill "$daemon" 2>/dev/null || true
  wait "$daemon" 2>/dev/null || true
  ip netns delete "$netns" 2>/dev/null || true
  rm -rf "$dir"
}
begin=$(now)
ip netns add "$netns"
ip netns exec "$netns" ip link set lo up
daemon=
trap clean EXIT

up
say "cleatd runs on $host"

mkdir -p "$dir/image/bin"
busybox=$(command -v busybox)
cp "$busybox" "$dir/image/bin/busybox"
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$dir/image/bin/$applet"; done
tar -C "$dir/image" -c . | $client import -c 'CMD ["sh"]' - busybox:latest >/dev/null
say "busybox:latest is imported, made of Debian's busybox-static"

before=$(now)
[ "$($client run --rm busybox echo hi)" = hi ] || fail "$client run does not say hi"
say "$client run --rm busybox echo hi: hi, in $(($(now) - before)) ms with the client's own start"

$client run -d --name counter busybox sh -c 'i=0; while :; do i=$((i+1)); echo $i; usleep 5000; done' >/dev/null
pid=$($client inspect -f '{{.State.Pid}}' counter)
say "a counter runs as pid $pid"

kill -9 "$daemon"; wait "$daemon" 2>/dev/null || true
say "the daemon was killed with SIGKILL"
kill -0 "$pid" 2>/dev/null || fail "the counter died with the daemon"
sleep 0.3
before=$(now)
up
say "a new daemon answers after $(($(now) - before)) ms"

[ "$($client inspect -f '{{.State.Pid}}' counter)" = "$pid" ] || fail "the counter has another pid"
say "the counter has the same pid, $pid"
$client stop -t 0 counter >/dev/null
$client logs counter >"$dir/counted"
awk '$1 != NR { print "line " NR " says " $1; exit 1 }' "$dir/counted" || fail "the counter's log has a gap"
say "its log counts from 1 to $(wc -l <"$dir/counted") without a gap or a double"
$client rm counter >/dev/null

kill "$daemon"; wait "$daemon" 2>/dev/null || true
! grep -q "$dir" /proc/self/mountinfo || fail "a mount is left"
! pgrep -f "$dir/run" >/dev/null || fail "a process is left"
[ -z "$(ip netns exec "$netns" ip -o link | grep -v ': lo:')" ] || fail "a network link is left"
say "nothing is left on the host"
