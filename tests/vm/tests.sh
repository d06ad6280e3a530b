#!/bin/bash
# In the guest: the end-to-end tests, each binary by itself. TEST[:FILTER] names some of them.
# Left out is what takes long and shows nothing that depends on the host, and what needs the fault points of a debug build.
set -uo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PWD/target/tools/usr/bin:$PWD/target/tools/bin:$PATH RUST_BACKTRACE=0
# systemd's /tmp is in memory and has no device nodes.
export TMPDIR=/var/tmp
# Slices are systemd's.
cgroups() { find /sys/fs/cgroup -name 'cleat*' ! -name '*.slice' | sort; }
before=$(cgroups)
failed=
skip=(--skip two_hundred_megabytes --skip twenty_times --skip between_any_two_steps --skip fault:: --skip registry --skip store::
  --skip others_read_what_we_save --skip never_reads --skip cut_short
  --skip durability:: --skip image_gc:: --skip bad_images:: --skip platforms:: --skip skopeo::)
for one in ${*:-cleat_runc:cgroup:: containerd_shim_cleat_v1 entering errors events exec isolation lifecycle limits \
  mounts rootless security systemd terminal task garbage ctr scenarios scenarios:systemd::}; do
  name=${one%%:*} filter=
  [ "$name" = "$one" ] || filter=${one#*:}
  # Elsewhere these are left out.
  [ "$filter" != systemd:: ] || filter="$filter --ignored"
  echo "-- $name $filter"
  ls "target/debug/deps/$name"-* >/dev/null || failed+=" $name"
  (cd / && "$OLDPWD"/target/debug/deps/"$name"-* $filter "${skip[@]}" --test-threads="${THREADS:-4}" 2>&1) || failed+=" $name"
done
left=$(cgroups)
[ "$left" = "$before" ] || { echo "cgroups left: $left"; failed+=" leak"; }
[ -z "$failed" ] || echo "failed:$failed"
[ -z "$failed" ]
