#!/bin/bash
# Runs runc's own integration suite against a runtime, from Debian's source package of runc: nothing of it is kept here.
#
#   conformance-runtime.sh RUNTIME [FILE.bats…]      all files without any; RUNTIME is a static binary
#   COMPARE=1 conformance-runtime.sh RUNTIME …       Debian's runc first, and then what it passes and RUNTIME does not
#
# Needs root, debootstrap and Debian's package sources. A tree of Debian sid is made once in CONFORMANCE_TREE
# (target/conformance): with a mount namespace, cgroups and a terminal of its own, so that the host sees nothing of it.
# Exits 0 if every test that is not skipped passes (with COMPARE=1: every one that runc passes).
set -euo pipefail

tree=${CONFORMANCE_TREE:-$(dirname "$0")/../target/conformance}
hierarchies="cpu cpuacct cpuset memory devices freezer blkio pids systemd unified"

# --- in the tree ---------------------------------------------------------------------------------------------------------

install_suite() {
  export DEBIAN_FRONTEND=noninteractive
  # The suite unpacks a Debian for every test of some files: the system as it is now, without what nobody looks at.
  [[ -e /suite/small.tar ]] || tar -C / --one-file-system --exclude=./usr/share --exclude=./usr/lib/x86_64-linux-gnu/gconv \
    --exclude=./usr/lib/x86_64-linux-gnu/perl-base --exclude=./var/cache --exclude=./var/lib/apt --exclude=./var/lib/dpkg \
    -cf /suite/small.tar ./bin ./etc ./lib ./lib64 ./sbin ./usr ./tmp ./root ./var
  local apt="apt-get -qy -o Acquire::Check-Valid-Until=false"
  sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >/etc/apt/sources.list.d/source.list
  $apt update
  $apt build-dep runc
  $apt install --no-install-recommends bats jq gawk busybox-static criu iptables uidmap iproute2 procps util-linux-extra runc golang-any
  cd /suite
  $apt source --download-only runc
  rm -rf src
  dpkg-source --no-check -x ./*.dsc src
  local data=src/tests/integration/testdata
  make_busybox "$data/busybox-$(go env GOARCH).tar.xz"
  # A plain archive under the name that the suite looks for: tar does not mind.
  mv small.tar "$data/debian-$(go env GOARCH).tar.xz"
  build_programs
  touch /suite/.complete
}

# The layout of the image that the suite expects: no /proc and no /sys.
make_busybox() {
  rm -rf busybox
  mkdir -p busybox/{bin,dev,etc,home,lib,root,sbin,tmp,usr/bin,usr/sbin,var}
  cp /usr/bin/busybox busybox/bin/busybox
  local applet
  for applet in $(busybox --list); do
    [[ $applet = busybox ]] || ln busybox/bin/busybox "busybox/bin/$applet"
  done
  ln -s /bin/env busybox/usr/bin/env
  chmod 1777 busybox/tmp
  printf '%s\n' root:x:0:0:root:/root:/bin/sh daemon:x:1:1:daemon:/usr/sbin:/bin/false \
    nobody:x:65534:65534:nobody:/home:/bin/false >busybox/etc/passwd
  printf '%s\n' root:x:0: daemon:x:1: tty:x:5: nogroup:x:65534: >busybox/etc/group
  tar -C busybox -cf "$1" .
}

# Debian packages the dependencies for a GOPATH.
build_programs() {
  export GOPATH=/suite/gopath GO111MODULE=off GOFLAGS=
  rm -rf gopath
  mkdir -p gopath
  cp -r /usr/share/gocode/src gopath/
  mkdir -p gopath/src/github.com/opencontainers
  rm -rf gopath/src/github.com/opencontainers/runc
  ln -s /suite/src gopath/src/github.com/opencontainers/runc
  cd gopath/src/github.com/opencontainers/runc
  local program
  for program in recvtty sd-helper seccompagent fs-idmap pidfd-kill remap-rootfs; do
    go build -tags seccomp -o "tests/cmd/_bin/$program" "./tests/cmd/$program"
  done
}

# Cgroups of our own under the mount points that the suite looks at.
mount_cgroups() {
  umount -l /sys/fs/cgroup
  if [[ $1 = v2 ]]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    return
  fi
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  local hierarchy
  for hierarchy in $hierarchies; do
    mkdir "/sys/fs/cgroup/$hierarchy"
    case $hierarchy in
    systemd) mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd ;;
    unified) mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
    *) mount -t cgroup -o "$hierarchy" cgroup "/sys/fs/cgroup/$hierarchy" ;;
    esac || rmdir "/sys/fs/cgroup/$hierarchy"
  done
}

# A file after the other: each has its time, and each test in it.
run_suite() {
  export RUNC=$1 TMPDIR=/suite/tmp HOME=/root LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  local output=$2 file
  shift 2
  rm -rf --one-file-system $TMPDIR
  mkdir -p $TMPDIR
  mkfifo $TMPDIR/terminal
  exec 9<>$TMPDIR/terminal
  cd /suite/src
  : >"$output"
  for file in "$@"; do
    echo "## $(basename "$file")" >>"$output"
    # One of its tests may wait for ever for CRIU. (Elsewhere a limit would do harm: bats loses failures with it.)
    unset BATS_TEST_TIMEOUT
    [[ $file = *checkpoint.bats ]] && export BATS_TEST_TIMEOUT=60
    timeout -k 5 "${LIMIT:-600}" script -qe -c "bats -t tests/integration/$(basename "$file")" /dev/null <&9 2>&1 |
      tr -d '\r\0' >>"$output" || true
  done
}

# Prints "file: test" for every line that begins with the given word.
named() { awk -v word="$2" '/^## / { file = $2 } index($0, word) == 1 && !/# skip/ { sub(/^(not )?ok [0-9]+ /, ""); print file ": " $0 }' "$1" | sort; }

# Tests that pass with runc and not with the runtime.
missing_ones() { comm -13 <(named /suite/runtime.out "ok " | sort -u) <(named /suite/runc.out "ok "); }

count() {
  awk '/^ok .*# skip/ { skipped++; next } /^ok / { passed++ } /^not ok / { failed++ }
    END { print passed + 0 " passed, " failed + 0 " failed, " skipped + 0 " skipped" }' "$1"
}

inside() {
  [[ -e /suite/.complete ]] || install_suite >/suite/install.log 2>&1 || { tail -20 /suite/install.log; exit 1; }
  local files=("$@")
  ((${#files[@]})) || mapfile -t files < <(cd /suite/src/tests/integration && ls ./*.bats)
  if [[ ${COMPARE:-} ]]; then
    run_suite /usr/sbin/runc /suite/runc.out "${files[@]}"
    echo "runc: $(count /suite/runc.out)"
  fi
  run_suite /usr/local/sbin/runtime /suite/runtime.out "${files[@]}"
  echo "runtime: $(count /suite/runtime.out)"
  if [[ ${COMPARE:-} ]]; then
    missing=$(missing_ones)
    # Some tests race with helpers of their own, on a busy machine above all: what is missing once is tried once more.
    mapfile -t files < <(cut -d: -f1 <<<"$missing" | sort -u)
    if [[ $missing ]]; then
      echo "passed by runc and not by the runtime at first:"
      echo "$missing"
      cp /suite/runtime.out /suite/first.out
      run_suite /usr/local/sbin/runtime /suite/again.out "${files[@]}"
      cat /suite/again.out >>/suite/runtime.out
      missing=$(missing_ones)
    fi
    echo "passed by runc and not by the runtime:"
  else
    missing=$(named /suite/runtime.out "not ok ")
    echo "failed:"
  fi
  echo "${missing:-(nothing)}"
  [[ -z $missing ]]
}

# --- on the host ---------------------------------------------------------------------------------------------------------

leave_cgroups() {
  local hierarchy
  for hierarchy in $hierarchies ""; do
    [[ -d /sys/fs/cgroup/$hierarchy/$group ]] || continue
    find "/sys/fs/cgroup/$hierarchy/$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}

enter() {
  local hierarchy kind=v1
  [[ -e /sys/fs/cgroup/cgroup.controllers ]] && kind=v2
  for hierarchy in $hierarchies ""; do
    [[ $hierarchy || $kind = v2 ]] && [[ -e /sys/fs/cgroup/$hierarchy/cgroup.procs ]] || continue
    mkdir -p "/sys/fs/cgroup/$hierarchy/$group"
    if [[ $hierarchy = cpuset ]]; then
      cat /sys/fs/cgroup/cpuset/cpuset.cpus >"/sys/fs/cgroup/cpuset/$group/cpuset.cpus"
      cat /sys/fs/cgroup/cpuset/cpuset.mems >"/sys/fs/cgroup/cpuset/$group/cpuset.mems"
    fi
    echo $BASHPID >"/sys/fs/cgroup/$hierarchy/$group/cgroup.procs"
  done
  # A plain chroot would not do: a runtime pivots. With a PID namespace of its own, whose first process is a shell: orphans are
  # reaped at once, which the suite waits for, and nothing survives the run.
  unshare --mount --cgroup --pid --fork --kill-child --propagation private bash -ec '
    tree=$1 kind=$2; shift 2
    mount --bind "$tree" "$tree"; cd "$tree"; mkdir -p .old
    mount -t proc proc proc; mount -t sysfs sysfs sys; mount --rbind /sys/fs/cgroup sys/fs/cgroup; mount --rbind /dev dev
    mount -t tmpfs -o mode=755 tmpfs run
    pivot_root . .old; cd /; umount -l /.old; mount --make-rshared /
    CONFORMANCE_INSIDE=$kind exec /suite/conformance "$@"' bash "$tree" "$kind" "$@"
}

if [[ ${CONFORMANCE_INSIDE:-} ]]; then
  mount_cgroups "$CONFORMANCE_INSIDE"
  inside "$@"
  exit
fi

runtime=${1:?usage: conformance-runtime.sh RUNTIME [FILE.bats…]}
shift
mkdir -p "$tree"
tree=$(realpath "$tree")
if [[ ! -e $tree/.complete ]]; then
  debootstrap --variant=minbase sid "$tree" >"$tree.log" 2>&1 || { tail -5 "$tree.log" >&2; exit 1; }
  cp /etc/resolv.conf "$tree/etc/resolv.conf"
  touch "$tree/.complete"
fi
mkdir -p "$tree/suite"
install -m 755 "$runtime" "$tree/usr/local/sbin/runtime"
install -m 755 "$0" "$tree/suite/conformance"
group=conformance-$$
trap leave_cgroups EXIT
(enter "$@")
