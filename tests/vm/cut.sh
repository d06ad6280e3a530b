#!/bin/bash
# In the guest, before and after the power was cut: what was acknowledged is there, whole.
. "$(dirname "$0")/lib.sh"

before() {
  install_cleat
  systemctl restart cleat.socket cleat.service
  import_busybox
  docker run -d --name always --restart always busybox sh -c 'echo hello; sleep 1000' >/dev/null
  docker run -d --name plain busybox sh -c 'echo hello; sleep 1000' >/dev/null
  docker run --name seven busybox sh -c 'echo seven; exit 7' || true
  docker run -d --rm --name gone busybox sleep 1000 >/dev/null
  docker volume create kept >/dev/null
  docker run --rm -v kept:/data busybox sh -c 'echo data >/data/file' && sync /var/lib/cleat/volumes/kept/_data/file
  # The last words before the cut: each was answered, none had time to settle by itself.
  docker create --name first busybox echo works >/dev/null
  docker rename first renamed
  docker tag busybox:latest other:tag
  docker save busybox:latest -o /dev/shm/image.tar
  import_busybox
  docker load -q -i /dev/shm/image.tar >/dev/null
  docker volume create last >/dev/null
  docker create --name last -v last:/data busybox sh -c 'echo works too' >/dev/null
}

after() {
  wait_for "the service, without a client" 'systemctl is-active -q cleat.service'
  check "images" "busybox:latest other:tag" "$(docker images --format '{{.Repository}}:{{.Tag}}' | grep -v none | sort | xargs)"
  check "a renamed container runs" works "$(docker start -a renamed)"
  check "the last container runs" "works too" "$(docker start -a last)"
  check "the old name is free" "from other" "$(docker run --rm --name first other:tag echo from other)"
  check "volumes" "kept last" "$(docker volume ls -q | sort | xargs)"
  check "a volume's data" data "$(docker run --rm -v kept:/data busybox cat /data/file)"
  wait_for "always" '[ "$(inspect always .State.Running)" = true ]'
  check "plain has ended" "exited 255" "$(inspect plain '.State.Status}} {{.State.ExitCode')"
  check "an exit is remembered" "exited 7 seven" "$(inspect seven '.State.Status}} {{.State.ExitCode') $(docker logs seven)"
  wait_for "the end of the --rm one" '! docker inspect gone'
  docker rm -f -v $(docker ps -aq) >/dev/null
  docker volume prune -af >/dev/null
  none_left
}
"$1"
