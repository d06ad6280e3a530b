#!/bin/sh
# `make install` puts every program in its place, and the unit names the one that was installed.
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
make -s install DESTDIR="$dir" PREFIX=/opt/cleat
for program in "cleatd --version" "cleat --version" "containerd-shim-cleat-v1 -v" "cleat-runc --version"; do
  "$dir/opt/cleat/bin/${program% *}" "${program#* }" >/dev/null
done
units=$dir/usr/lib/systemd/system
grep -qx 'ExecStart=/opt/cleat/bin/cleatd -H fd://' "$units/cleat.service"
[ -f "$units/cleat.socket" ]
echo "make install: all in place"
