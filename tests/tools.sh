#!/bin/sh
# Brings the tools of the tests: small ones as Debian packages, engines only unpacked below target/tools, so that no
# service of theirs ever starts. Does nothing where everything is there already.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
mkdir -p "$tools"

updated=
update() { [ -n "$updated" ] || apt-get update -qq; updated=yes; }

need() { # PROGRAM PACKAGE
  command -v "$1" >/dev/null || { update; DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$2" >/dev/null; }
}

unpack() { # FILE PACKAGE: unpack PACKAGE unless FILE is there
  [ -e "$tools/$1" ] && return
  update
  dir=$(mktemp -d)
  (cd "$dir" && apt-get download -qq "$2" >/dev/null && dpkg-deb -x ./*.deb "$tools")
  rm -rf "$dir"
}

need ip iproute2
need nft nftables
need ps procps
need nsenter util-linux
need busybox busybox-static
need newuidmap uidmap
need curl curl
need openssl openssl
unpack bin/busybox busybox-static
unpack usr/bin/containerd containerd
unpack usr/bin/docker-registry docker-registry
if ! command -v podman >/dev/null; then
  unpack usr/bin/podman podman
  unpack usr/bin/conmon conmon
  # Libraries cannot be beside it: conmon starts it again without the environment that would say where.
  if ldd "$tools/usr/bin/podman" "$tools/usr/bin/conmon" | grep -q 'not found'; then
    update
    libraries=$(apt-cache depends --important podman conmon | sed -n 's/^ .*Depends: \(lib[a-z].*\)/\1/p')
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $libraries >/dev/null
  fi
fi
# Independent readers of images.
unpack usr/bin/umoci umoci
unpack usr/bin/skopeo skopeo
if ldd "$tools/usr/bin/skopeo" | grep -q 'not found'; then
  update
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends libgpgme11 libdevmapper1.02.1 >/dev/null
fi
command -v docker >/dev/null || unpack usr/bin/docker docker.io
command -v systemd-analyze >/dev/null || need systemd-analyze systemd
