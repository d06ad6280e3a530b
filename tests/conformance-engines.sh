#!/bin/bash
# Real engines run their containers with a runtime: dockerd (--add-runtime) and Podman (--runtime), out of a tree that has them.
#
#   ENGINES="COMMAND…" conformance-engines.sh RUNTIME      COMMAND runs another one as root in the tree; none without
#
# The engines have directories, a PID and a mount namespace of their own and no network but the loopback interface; services that
# run in the tree do not notice. RUNTIME is a static binary. Exits 0 if everything is as expected.
set -euo pipefail

# --- in the tree ---------------------------------------------------------------------------------------------------------

failed=0
passed=0
check() { # WHAT EXPECTED ACTUAL
  if [[ $2 = "$3" ]]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $engine: $1: expected '$2', got '$3'"
  fi
}

code() { local code=0; "$@" >/dev/null 2>&1 || code=$?; echo "$code"; }

# A root filesystem with a static busybox, at $work/tree.
make_tree() {
  mkdir -p "$work/tree"/{bin,dev,etc,proc,root,run,sys,tmp}
  cp "$(command -v busybox)" "$work/tree/bin/busybox"
  for applet in $(busybox --list); do [[ $applet = busybox ]] || ln -s busybox "$work/tree/bin/$applet"; done
  printf '%s\n' root:x:0:0::/root:/bin/sh user:x:1000:1000::/:/bin/sh >"$work/tree/etc/passwd"
  printf '%s\n' root:x:0: user:x:1000: >"$work/tree/etc/group"
}

# What both engines do alike. $engine runs a container of $image.
common() {
  local out options
  check "output and exit code" "out 3" "$(code=0; out=$($engine run --rm $image sh -c 'echo out; exit 3') || code=$?; echo "$out $code")"
  check "a program that is not there" 127 "$(code $engine run --rm $image /no/such)"
  check "a program that may not be run" 126 "$(code $engine run --rm $image /etc/passwd)"
  check "input" hello "$(echo hello | $engine run --rm -i $image cat)"
  check "a user" 1000:1000 "$($engine run --rm -u user $image sh -c 'echo $(id -u):$(id -g)')"
  check "a directory, a variable, a name" "/tmp b web" "$($engine run --rm -w /tmp -e A=b -h web $image sh -c 'echo $PWD $A $(hostname)')"
  check "read-only" "no yes" \
    "$($engine run --rm --read-only --tmpfs /tmp $image sh -c '(: >/x) 2>/dev/null && echo -n yes || echo -n no; : >/tmp/x && echo " yes"')"
  echo from the host >"$work/file"
  check "a bind mount" "from the host no" \
    "$($engine run --rm -v "$work/file:/file:ro" $image sh -c 'cat /file; (: >/file) 2>/dev/null && echo yes || echo no' | xargs)"
  check "no capabilities" 0000000000000000 "$($engine run --rm --cap-drop ALL $image sh -c 'grep CapEff /proc/self/status | cut -f2')"
  check "one capability" 0000000000200000 \
    "$($engine run --rm --cap-drop ALL --cap-add SYS_ADMIN $image sh -c 'grep CapEff /proc/self/status | cut -f2')"
  check "a seccomp filter" 2 "$($engine run --rm $image sh -c 'grep Seccomp: /proc/self/status | cut -f2')"
  check "none" 0 "$($engine run --rm --security-opt seccomp=unconfined $image sh -c 'grep Seccomp: /proc/self/status | cut -f2')"
  check "privileged" yes "$($engine run --rm --privileged $image sh -c 'mount -t tmpfs x /tmp && echo yes')"
  check "the host's processes" "$(readlink /proc/self/ns/pid)" "$($engine run --rm --pid host $image readlink /proc/self/ns/pid)"
  check "a limit of files" 100 "$($engine run --rm --ulimit nofile=100:100 $image sh -c 'ulimit -n')"
  check "a sysctl" 7 "$($engine run --rm --sysctl kernel.msgmax=7 $image cat /proc/sys/kernel/msgmax)"
  check "a device" "crw" "$($engine run --rm --device /dev/null:/dev/nothing $image sh -c 'ls -l /dev/nothing | cut -c1-3')"

  $engine run -d --name web -m 64m --pids-limit 20 --cpu-shares 512 $image sh -c 'echo hello; exec sleep 1000' >/dev/null
  check "the runtime" cleat "$($engine inspect --format "$runtime_of" web | sed 's,.*/,,; s/-runc$//')"
  limits='cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null'
  check "a limit of memory" 67108864 "$($engine exec web sh -c "$limits")"
  $engine update -m 80m --memory-swap 160m web >/dev/null
  check "an update" 83886080 "$($engine exec web sh -c "$limits")"
  check "an exec" "b 0 /tmp" "$($engine exec -e A=b -w /tmp web sh -c 'echo $A $(id -u) $PWD')"
  check "its exit code" 7 "$(code $engine exec web sh -c 'exit 7')"
  check "its user" 1000 "$($engine exec -u 1000 web id -u)"
  check "an exec of nothing" 127 "$(code $engine exec web /no/such)"
  check "a terminal" "/dev/pts/0" "$(script -qec "$engine exec -t web tty" /dev/null </dev/null | tr -d '\r')"
  $engine exec -d web sh -c 'echo in the background >/tmp/made'
  for _ in $(seq 100); do $engine exec web test -s /tmp/made && break; sleep 0.1; done
  check "an exec in the background" "in the background" "$($engine exec web cat /tmp/made)"
  check "processes" yes "$($engine top web | grep -q 'sleep 1000' && echo yes)"
  check "logs" hello "$($engine logs web)"
  check "statistics" web "$($engine stats --no-stream --format '{{.Name}}' web)"
  $engine pause web >/dev/null
  check "paused" paused "$($engine inspect --format '{{.State.Status}}' web)"
  $engine unpause web >/dev/null
  check "running" running "$($engine inspect --format '{{.State.Status}}' web)"
  $engine cp web:/etc/passwd "$work/copied"
  check "a copy" "$(cat "$work/tree/etc/passwd")" "$(cat "$work/copied")"
  $engine kill -s KILL web >/dev/null
  check "killed" 137 "$($engine wait web)"
  $engine start web >/dev/null
  $engine restart -t 0 web >/dev/null
  check "restarted" running "$($engine inspect --format '{{.State.Status}}' web)"
  $engine stop -t 0 web >/dev/null
  check "stopped" "exited 137" "$($engine inspect --format '{{.State.Status}} {{.State.ExitCode}}' web)"
  $engine rm -f web >/dev/null
  check "nothing is left" 0 "$($engine ps -aq | wc -l)"
  check "no cgroup is left" "" "$(find /sys/fs/cgroup -type d -path "*/$cgroup_parent/*" ! -name conmon 2>/dev/null)"
}

dockerd_runs() {
  export DOCKER_HOST=unix://$work/docker.sock
  dockerd -H "$DOCKER_HOST" --data-root "$work/docker" --exec-root "$work/docker.run" --pidfile "$work/docker.pid" \
    --bridge none --iptables=false --ip6tables=false --cgroup-parent "/$cgroup_parent" \
    --add-runtime "cleat=$work/cleat-runc" --default-runtime cleat >"$work/dockerd.log" 2>&1 &
  for _ in $(seq 300); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
  tar -C "$work/tree" -c . | docker import - engines-busybox >/dev/null
  engine=docker image=engines-busybox runtime_of='{{.HostConfig.Runtime}}' common
  engine=docker
  check "the default runtime" cleat "$(docker info --format '{{.DefaultRuntime}}')"
  check "init" "docker-init" "$(docker run --rm --init engines-busybox sh -c 'cat /proc/1/comm')"
  check "a cgroup namespace of one's own, or not" "2" \
    "$({ docker run --rm --cgroupns private engines-busybox readlink /proc/self/ns/cgroup; docker run --rm --cgroupns host engines-busybox readlink /proc/self/ns/cgroup; } | sort -u | wc -l)"
  docker run -d --name one --ipc shareable engines-busybox sleep 1000 >/dev/null
  check "another's namespaces" "$(docker exec one sh -c "$spaces")" \
    "$(docker run --rm --network container:one --ipc container:one --pid container:one engines-busybox sh -c "$spaces")"
  docker rm -f one >/dev/null
  kill "$(cat "$work/docker.pid")" && wait
}

podman_runs() {
  printf '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n[containers]\nnetns = "none"\n' >"$work/containers.conf"
  export CONTAINERS_CONF=$work/containers.conf PODMAN_IGNORE_CGROUPSV1_WARNING=1
  cat >"$work/podman" <<-END
	#!/bin/sh
	verb=\$1; shift
	case \$verb in run) set -- --cgroup-parent /$cgroup_parent "\$@" ;; esac
	exec podman --root $work/podman.root --runroot $work/podman.run --tmpdir $work/podman.tmp --storage-driver vfs \
	  --runtime $work/cleat-runc "\$verb" "\$@"
	END
  chmod +x "$work/podman"
  tar -C "$work/tree" -c . | "$work/podman" import - engines-busybox >/dev/null 2>&1
  engine=$work/podman image=engines-busybox runtime_of='{{.OCIRuntime}}' common
  engine=podman
  "$work/podman" pod create --name pod --infra-image engines-busybox --infra-command "sleep 1000" >/dev/null
  for one in a b; do "$work/podman" create --pod pod --name $one engines-busybox sh -c "$spaces" >/dev/null; done
  check "a pod" "$("$work/podman" start -a a)" "$("$work/podman" start -a b)"
  "$work/podman" pod rm -f -t 0 pod >/dev/null
}

if [[ ${ENGINES_INSIDE:-} ]]; then
  work=$ENGINES_INSIDE
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/lock
  make_tree
  spaces='for one in net ipc; do readlink /proc/self/ns/$one; done'
  cgroup_parent=engines-$(basename "$work")
  dockerd_runs
  podman_runs
  find /sys/fs/cgroup -depth -type d -path "*/$cgroup_parent*" -exec rmdir {} + 2>/dev/null || true
  echo "$passed passed, $failed failed"
  exit $((failed > 0))
fi

# --- outside -------------------------------------------------------------------------------------------------------------

runtime=${1:?usage: conformance-engines.sh RUNTIME}
# shellcheck disable=SC2206
tree=(${ENGINES:-})
# shellcheck disable=SC2016
work=$("${tree[@]}" sh -ec 'work=$(mktemp -d); cat >"$work/cleat-runc"; chmod 755 "$work" "$work/cleat-runc"; echo "$work"' <"$runtime")
trap '"${tree[@]}" rm -rf "$work"' EXIT
"${tree[@]}" sh -ec 'cat >"$1/script"' sh "$work" <"$0"
# The first process of the PID namespace only waits: it reaps what engines leave to it.
"${tree[@]}" unshare --mount --pid --fork --kill-child --mount-proc --propagation private \
  bash -c 'ENGINES_INSIDE=$1 bash "$1/script" & wait $!' bash "$work"
