#!/usr/bin/env bash
# Runs a command again until it is done, or until another start is of no use.
set -euo pipefail
# shellcheck source=launch/cli.sh
source "$(dirname "${BASH_SOURCE[0]}")/cli.sh"

usage() {
  cat <<'END'
usage: bash launch/until_done.sh [flags] -- COMMAND...

Runs COMMAND, and runs it again when it ends with a status that is worth another
start: a crash, a preemption, a full disk (docs/reliability.md has the table).
Bad input, a dead end, Ctrl-C and a command that is not there end this, too,
with their status. So does SIGTERM, which COMMAND gets as well.

--max_restarts=N   times that it is run again: 50
--pause_seconds=N  before that: 30
END
}

parse "max_restarts pause_seconds" "" "$@"
: "${flag[max_restarts]:=50}" "${flag[pause_seconds]:=30}"
check_count max_restarts 0 "a number"
check_count pause_seconds 0 "seconds"
need_command

stopped="" child=""
end_child() { [[ -z "$child" ]] || kill -TERM "$child" 2>/dev/null || true; }
on_term() {
  stopped=yes
  end_child
}
trap on_term TERM

for ((restart = 0; ; restart++)); do
  [[ -z "$stopped" ]] || exit 143
  "${command_words[@]}" &
  child=$! status=0
  [[ -z "$stopped" ]] || end_child # SIGTERM came before its number was known
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do # a signal ended the wait alone
    status=0
    wait "$child" || status=$?
  done
  child=""
  [[ -z "$stopped" ]] || exit "$status"
  ((status)) || exit 0
  ! is_final "$status" || exit "$status"
  if ((restart >= flag[max_restarts])); then
    printf 'error: it ended with status %d, and was run again %d times\n' \
      "$status" "$restart" >&2
    exit "$status"
  fi
  printf 'it ended with status %d: run again in %d s\n' "$status" \
    "${flag[pause_seconds]}" >&2
  sleep "${flag[pause_seconds]}" &
  child=$! # SIGTERM ends it as well
  [[ -z "$stopped" ]] || end_child
  wait "$child" || exit 143
  child=""
done
