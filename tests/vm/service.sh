#!/bin/bash
# In the guest: systemd starts, stops and restarts the engine, and containers do not notice.
. "$(dirname "$0")/lib.sh"
install_cleat

systemctl stop cleat.service cleat.socket
systemctl start cleat.socket
check "the socket is the group's" "660 root docker" "$(stat -c '%a %U %G' /run/cleat.sock)"
check "nobody asked yet" inactive "$(systemctl is-active cleat.service || true)"
docker version >/dev/null
check "the first client starts the service" "active notify" "$(systemctl show -p ActiveState,Type --value cleat.service | sort | xargs)"
check "the cgroup version" "2 systemd" "$(docker info --format '{{.CgroupVersion}} {{.CgroupDriver}}')"
check "no warning but that nothing is forwarded yet" "[]" \
  "$(docker info --format '{{json .Warnings}}' | sed 's/"WARNING: IPv4 forwarding is disabled"//; s/null/[]/')"
import_busybox

docker run -d --name keep -m 64m --pids-limit 50 busybox sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done' >/dev/null
pid=$(inspect keep .State.Pid)
# Nobody restarts it as often as this script; see StartLimitBurst in the unit.
again() { systemctl reset-failed cleat.service; "$@"; }
keeps() { check "$1: the same process runs" "true $pid" "$(inspect keep '.State.Running}} {{.State.Pid')"; }
check "a container is no more protected from the OOM killer than others" 0 "$(docker exec keep cat /proc/1/oom_score_adj)"

again systemctl restart cleat.service; keeps "after a restart"
systemctl reload cleat.service; keeps "after a reload"
systemctl daemon-reload; keeps "after systemd read its units again"
check "limits stay" "67108864 50" "$(docker exec keep cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max | xargs)"
old=$(main_pid); again kill -9 "$old"
wait_for "another daemon" '[ "$(main_pid)" != 0 ] && [ "$(main_pid)" != '"$old"' ] && systemctl is-active -q cleat.service'
keeps "after the daemon was killed"
systemctl stop cleat.service
check "stopped" inactive "$(systemctl is-active cleat.service || true)"
check "the container runs without a daemon" sh "$(cat "/proc/$pid/comm")"
again keeps "a client brings the daemon back" # by the socket
docker run --rm busybox true
check "the log has no gap" "" "$(docker logs keep | awk '$1 != NR { print NR; exit }')"
docker rm -f keep >/dev/null
none_left
# As it was told for once: directories of the engine's own.
systemctl stop cleat.socket cleat.service
mkdir -p /etc/cleat
echo '{"exec-opts": ["native.cgroupdriver=cgroupfs"]}' >/etc/cleat/daemon.json
systemctl start cleat.socket
check "the cgroup driver that was asked for" "cgroupfs" "$(docker info --format '{{.CgroupDriver}}')"
check "a cgroup below the daemon's" "0::/cleat/" "$(docker run --rm --cgroupns host busybox cat /proc/self/cgroup | cut -c-10)"
none_left
systemctl stop cleat.socket cleat.service
check "the parent cgroup goes with the daemon" "" "$(ls -d /sys/fs/cgroup/cleat 2>/dev/null || true)"
rm /etc/cleat/daemon.json
