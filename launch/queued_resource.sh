#!/usr/bin/env bash
# A slice from nothing to nothing: asks for it, waits, installs, runs, deletes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/cli.sh

usage() {
  cat <<'END'
usage: bash launch/queued_resource.sh --name=NAME --zone=ZONE \
         --topology=v5p:8x8x8 [flags] -- COMMAND...

Creates the queued resource NAME, waits until it is active, installs the last
commit on all hosts, runs COMMAND on all and deletes the resource, also when
COMMAND failed or this script is interrupted. It deletes nothing else: what it
creates bears a label of its own. A slice that was taken away, before or under
COMMAND, is asked for again and COMMAND started again: `tml_jax.train` resumes.
What fails by itself (a look at the queue, an installation, a connection) is
tried again. Exit status: that of COMMAND; 2 for flags that cannot be; 1 else.

--name=NAME            of the queued resource and of its TPU
--zone=ZONE            where
--topology=FAMILY:AxB  v5p:AxBxC or v6e:AxB (tpu7x is to be had through GKE
                       only: launch/gke/submit.sh)
--project=ID           default: that of gcloud
--num_slices=N         slices of this topology, connected by the network
--runtime_version=V    default: v2-alpha-tpuv5 or v2-alpha-tpuv6e
--capacity=KIND        on_demand (default), spot or reserved
--service_account=A    whose rights the hosts have, for instance on the bucket
--network=N            for several slices one with an MTU of 8896 is faster
--max_restarts=N       times that a preempted slice is asked for again: 10
--max_failures=N       times that anything else is tried: 20
--poll_seconds=N       between looks at the queue, and between tries: 30
--keep                 leaves the resource there at the end: it goes on costing
--dry_run              prints the commands instead of running them
END
}

parse "name zone topology project num_slices runtime_version capacity \
service_account network max_restarts max_failures poll_seconds" "keep dry_run" "$@"
check_name name "name the queued resource"
check_zone
check_topology 'v5p|v6e' \
  "v5p:AxBxC or v6e:AxB (tpu7x through GKE: launch/gke/submit.sh)"
: "${flag[num_slices]:=1}" "${flag[capacity]:=on_demand}"
: "${flag[max_restarts]:=10}" "${flag[max_failures]:=20}"
: "${flag[poll_seconds]:=30}"
check_count num_slices 1 "a number of slices"
check capacity 'on_demand|spot|reserved' "one of on_demand, spot, reserved"
check_count max_restarts 0 "a number"
check_count max_failures 1 "a number"
check_count poll_seconds 0 "seconds"
need_command
check_committed

chips="$(chips_of "${flag[topology]}")"
case "${flag[topology]}" in
  v5p:*) # counts its TensorCores, two a chip
    accelerator="v5p-$((2 * chips))"
    : "${flag[runtime_version]:=v2-alpha-tpuv5}"
    ;;
  v6e:*)
    accelerator="v6e-$chips"
    : "${flag[runtime_version]:=v2-alpha-tpuv6e}"
    ;;
esac
where=("--zone=${flag[zone]}")
[[ -z "${flag[project]:-}" ]] || where+=("--project=${flag[project]}")
slices=("--name=${flag[name]}" "--num_slices=${flag[num_slices]}" "${where[@]}")
dry=(${flag[dry_run]:+--dry_run})
resources=(gcloud compute tpus queued-resources)
describe=("${resources[@]}" describe "${flag[name]}" "${where[@]}"
  '--format=value(state.state,tpu.nodeSpec[0].node.labels.tml_jax_run)')
# What this run created bears it, and nothing else is deleted.
mark="$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')"
said="$(mktemp)"

# stop WORDS...: ends with 1, which is no fault of the flags.
stop() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

create() {
  local words=("${resources[@]}" create "${flag[name]}" "${where[@]}"
    "--accelerator-type=$accelerator"
    "--runtime-version=${flag[runtime_version]}"
    "--labels=tml_jax_run=$mark")
  if ((flag[num_slices] > 1)); then
    words+=("--node-count=${flag[num_slices]}" "--node-prefix=${flag[name]}")
  else
    words+=("--node-id=${flag[name]}")
  fi
  case "${flag[capacity]}" in
    spot | reserved) words+=("--${flag[capacity]}") ;;
  esac
  [[ -z "${flag[service_account]:-}" ]] ||
    words+=("--service-account=${flag[service_account]}")
  [[ -z "${flag[network]:-}" ]] || words+=("--network=${flag[network]}")
  run "${words[@]}" --quiet
}

# In a trap a bare `return` gives the status from before it.

# Sets `state`, NOT_FOUND where there is none, and `owner`, the mark of the run
# that created it. Fails when there was no answer --max_failures times.
look() {
  local answer i
  if [[ -n "${flag[dry_run]:-}" ]]; then
    run "${describe[@]}"
    state=ACTIVE owner="$mark"
    return 0
  fi
  for ((i = 1; ; i++)); do
    if answer="$("${describe[@]}" 2>"$said")"; then
      IFS=$'\t' read -r state owner <<<"$answer"
      return 0
    fi
    if [[ "$(<"$said")" == *NOT_FOUND* ]]; then
      state=NOT_FOUND owner=""
      return 0
    fi
    cat "$said" >&2
    ((i < flag[max_failures])) || return 1
    sleep "${flag[poll_seconds]}"
  done
}

look_or_stop() {
  look || stop "${flag[name]}: no answer ${flag[max_failures]} times in a row:" \
    "gcloud says why above"
}

# Deletes what this run created, and succeeds when that is gone.
delete() {
  local i
  for ((i = 1; ; i++)); do
    look || return 1
    [[ "$owner" == "$mark" ]] || return 0
    if run "${resources[@]}" delete "${flag[name]}" "${where[@]}" --force \
      --quiet; then
      return 0
    fi
    ((i < flag[max_failures])) || return 1
    sleep "${flag[poll_seconds]}"
  done
}

asked="" # whether something of this run may be there
cleanup() {
  local status=$?
  trap '' INT TERM
  if [[ -n "$asked" && -n "${flag[keep]:-}" ]]; then
    printf 'kept, it goes on costing: %s delete %s %s --force\n' \
      "${resources[*]}" "${flag[name]}" "${where[*]}" >&2
  elif [[ -n "$asked" ]] && ! delete; then
    printf 'error: NOT DELETED, it may go on costing: %s delete %s %s --force\n' \
      "${resources[*]}" "${flag[name]}" "${where[*]}" >&2
    status=$((status ? status : 1))
  fi
  rm -f "$said"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# failed WORDS...: something that is tried again, --max_failures times.
failures=0
failed() {
  ((++failures < flag[max_failures])) ||
    stop "${flag[name]}: $* $failures times: gcloud says why above"
  printf '%s: %s, trying again\n' "${flag[name]}" "$*" >&2
  sleep "${flag[poll_seconds]}"
}

# Returns when the resource is in the queue.
ask() {
  asked=yes # a create that fails half-way leaves a resource too
  until create; do
    look_or_stop
    [[ "$owner" != "$mark" ]] || return 0
    if [[ "$state" != NOT_FOUND ]]; then
      asked=""
      stop "a queued resource ${flag[name]} is there ($state) and is not of" \
        "this run: give another --name, or run on it with launch/on_slice.sh"
    fi
    ((restart > 0)) || stop "${flag[name]} was not created: gcloud says why above"
    failed "it was not created"
  done
}

# Returns when the slices are there, or were taken away.
wait_until_active() {
  local last=""
  while true; do
    look_or_stop
    if [[ "$state" != "$last" ]]; then
      printf '%s %s is %s\n' "$(date '+%H:%M:%S')" "${flag[name]}" "$state" >&2
      last="$state"
    fi
    [[ "$owner" == "$mark" ]] || stop "${flag[name]} is not of this run any more"
    case "$state" in
      ACTIVE | SUSPENDING | SUSPENDED) return ;;
      FAILED | DELETING)
        stop "the queued resource ${flag[name]} is $state: ${resources[*]}" \
          "describe ${flag[name]} ${where[*]} says why"
        ;;
    esac
    sleep "${flag[poll_seconds]}"
  done
}

# Runs the words on the slice again where its connection failed (255: of ssh
# itself), or, with "always" before them, whatever failed. Returns when they
# have succeeded or the slice was taken away; else ends with their status.
on_it() {
  local again="$1" status
  shift
  while true; do
    status=0
    "$@" || status=$?
    ((status)) || return 0
    sleep "${flag[poll_seconds]}" # the connection breaks before the state says
    look_or_stop
    [[ "$state" == ACTIVE && "$owner" == "$mark" ]] || break
    [[ "$again" == always || "$status" == 255 ]] || exit "$status"
    failed "$2 failed on it (exit $status)"
  done
  [[ "$state" == SUSPEND* ]] || exit "$status"
}

for ((restart = 0; ; restart++)); do
  ask
  wait_until_active
  if [[ "$state" == ACTIVE ]]; then
    on_it always bash launch/install_on_slice.sh "${slices[@]}" "${dry[@]}"
  fi
  if [[ "$state" == ACTIVE ]]; then
    on_it once bash launch/on_slice.sh "${slices[@]}" "${dry[@]}" -- \
      "${command_words[@]}"
  fi
  [[ "$state" == SUSPEND* ]] || exit 0
  ((restart < flag[max_restarts])) ||
    stop "${flag[name]} was preempted $((restart + 1)) times: give more" \
      "--max_restarts, or another --capacity"
  printf '%s was preempted: asking for it again\n' "${flag[name]}" >&2
  delete || stop "${flag[name]} was preempted and cannot be deleted"
done
