#!/bin/bash
# In the guest, before and after an orderly reboot: who is to come back does, the others do not, and nothing is left of them.
. "$(dirname "$0")/lib.sh"

before() {
  install_cleat
  systemctl restart cleat.socket cleat.service
  import_busybox
  # Each writes a line when it is told to end, and ends.
  local script='trap "echo bye; exit 3" TERM; echo hello; while :; do sleep 0.2; done'
  for policy in always unless-stopped on-failure no; do
    docker run -d --name "$policy" --restart "$policy" -v "data-$policy:/data" busybox sh -c "$script" >/dev/null
  done
  docker run -d --name stopped --restart unless-stopped busybox sh -c "$script" >/dev/null
  docker stop stopped >/dev/null
  docker run -d --rm --name gone -v /anonymous busybox sh -c "$script" >/dev/null
  docker create --name created busybox >/dev/null
  echo kept >/var/lib/cleat/volumes/data-always/_data/file
  date +%s >/var/tmp/cleat-rebooted-at
}

after() {
  echo "rebooted in $(($(date +%s) - $(cat /var/tmp/cleat-rebooted-at))) s"
  wait_for "the service, without a client" 'systemctl is-active -q cleat.service'
  for name in always unless-stopped; do
    wait_for "$name" '[ "$(inspect '$name' .State.Running)" = true ]'
    check "$name is back" "hello bye hello" "$(docker logs $name | xargs)"
  done
  check "its volume too" kept "$(docker exec always cat /data/file)"
  check "no was told to end" "exited 3 hello bye" "$(inspect no '.State.Status}} {{.State.ExitCode') $(docker logs no | xargs)"
  check "stopped stays so" "exited 3" "$(inspect stopped '.State.Status}} {{.State.ExitCode')"
  check "created stays so" created "$(inspect created .State.Status)"
  check "on-failure" true "$(inspect on-failure .State.Running)"
  wait_for "the end of the --rm one" '! docker inspect gone'
  check "and of its volume" "data-always data-no data-on-failure data-unless-stopped" "$(docker volume ls -q | sort | xargs)"
  docker rm -f -v $(docker ps -aq) >/dev/null
  docker volume prune -af >/dev/null
  none_left
}
"$1"
