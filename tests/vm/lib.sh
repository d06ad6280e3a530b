# For the scripts that run in the guest: the engine as `make install` puts it, and what is expected of it.
set -euo pipefail
export DOCKER_HOST=unix:///run/cleat.sock DOCKER_CONFIG=/nonexistent
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PATH=$repository/target/tools/usr/bin:$repository/target/tools/bin:$PATH

check() { # WHAT EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then echo "ok: $1"; else echo "FAILED: $1: expected '$2', got '$3'"; journalctl -u cleat.service -o cat | tail -n 40; exit 1; fi
}

wait_for() { # WHAT COMMAND: until it succeeds, a minute at most
  local end=$((SECONDS + 60))
  while [ $SECONDS -lt $end ]; do eval "$2" >/dev/null 2>&1 && return; sleep 0.2; done
  check "$1" within "a minute in vain"
}

inspect() { docker inspect --format "{{$2}}" "$1"; }
main_pid() { systemctl show -p MainPID --value cleat.service; }

install_cleat() {
  cp -a --remove-destination "$repository/install/." /
  systemd-sysusers
  systemctl daemon-reload
  systemctl enable -q cleat.socket cleat.service
}

import_busybox() {
  local tree; tree=$(mktemp -d); mkdir "$tree/bin"
  cp /bin/busybox "$tree/bin/busybox"; for one in sh sleep cat true echo id wc; do ln -s busybox "$tree/bin/$one"; done
  tar -C "$tree" -c . | docker import -c 'CMD ["sh"]' - busybox:latest >/dev/null; rm -rf "$tree"
}

# What of containers is on the host. Network namespaces that wait for their container are the daemon's.
leftovers() {
  find /sys/fs/cgroup -path '*cleat*' -name '*????????????????????????????????????????????????????????????????*' -type d
  ls -d /run/cleat/tasks/*/* 2>/dev/null || true
  pgrep -a containerd-shim || true
  ip -o link | grep veth | grep -v 'alias cleat:ready' || true
  grep -E '/var/lib/cleat/(snapshots|containers)' /proc/self/mountinfo || true
}

# Ends take a moment after their answer.
none_left() {
  local end=$((SECONDS + 60))
  while [ $SECONDS -lt $end ] && [ -n "$(leftovers)" ]; do sleep 0.2; done
  check "nothing is left" "" "$(leftovers)"
}
