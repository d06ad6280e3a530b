#!/bin/bash
# Puts what the guest needs into target/vm/tree.tar: the tests, the programs, the tools and the units, at the repository's own
# paths, since a test knows where it was built. Debugging information stays here.
set -euo pipefail
cd "$(dirname "$0")/../.."
tree=target/vm/tree
rm -rf "$tree" target/vm/tree.tar
mkdir -p "$tree/target/debug/deps" "$tree/target/tools/usr/bin" "$tree/target/tools/bin" "$tree/tests" "$tree/$SMALL"

cargo test --no-run -p cleat-runc -p containerd-shim-cleat-v1 -p cleat-tests 2>&1 | tee target/vm/build.log >&2
tests=$(sed -n 's/.*Executable .*(\(.*\))/\1/p' target/vm/build.log)
for program in $tests; do
  strip -o "$tree/$program" "$program"
done
# The programs are those of a release, where the tests look for theirs: emulation makes unoptimised ones several times slower.
cp "$SMALL/cleat-runc" "$tree/$SMALL/"
cp "$RELEASE"/{cleatd,cleat} "$SMALL"/{cleat-runc,containerd-shim-cleat-v1} "$tree/target/debug/"
for tool in busybox docker containerd ctr; do
  from=$(ls -d target/tools/{bin,usr/bin}/$tool "$(command -v $tool)" 2>/dev/null | head -n 1 || true)
  [ $tool = busybox ] && to=bin || to=usr/bin
  cp "$from" "$tree/target/tools/$to/$tool"
done
cp -r tests/vm "$tree/tests/"
cp -r deploy "$tree/"
make -s -o build install DESTDIR="$PWD/$tree/install"
tar -C "$tree" -cf target/vm/tree.tar .
