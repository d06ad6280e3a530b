#!/bin/bash
# What this host may be unable to show, in a virtual machine with systemd and cgroup v2 alone: `make test-vm`.
# VM is the script that runs it: start, stop, reset (of its disk), reboot, cut (of the power), exec COMMAND; VM_SHARE is seen in it
# as /share.
# What to run may be named: tests service reboot cut.
set -euo pipefail
cd "$(dirname "$0")/../.."
export VM_SHARE=$PWD/target/vm VM_CPUS=${VM_CPUS:-2} VM_MEM=${VM_MEM:-2048} VM_NAME=${VM_NAME:-cleat}
here=$PWD
# In the background, so that the end of the budget (SIGTERM) is heard at once.
guest() { "$VM" exec "cd $here && $*" & wait $!; }
step() { echo "== $* (${SECONDS} s)"; }

tests/vm/stage.sh
SECONDS=0
step boot
trap '"$VM" stop' EXIT
trap 'echo "out of time"; exit 1' TERM
# What a run that was cut off left on its disk is no part of this one.
"$VM" stop
"$VM" reset
"$VM" start
"$VM" exec "mkdir -p $here && tar -C $here -xf /share/tree.tar"
failed=
for part in ${*:-tests service reboot cut}; do
  step "$part"
  case $part in
  tests) guest tests/vm/tests.sh ${TESTS:-} || failed+=" tests" ;;
  service) guest tests/vm/service.sh || failed+=" service" ;;
  reboot | cut)
    { guest "tests/vm/$part.sh before" && "$VM" "$part" && { [ $part = reboot ] || "$VM" start; } &&
      guest "tests/vm/$part.sh after"; } || failed+=" $part" ;;
  esac
done
step "${failed:+failed:}${failed:-all passed}"
[ -z "$failed" ]
