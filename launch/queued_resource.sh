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
COMMAND failed or this script is interrupted. A slice that was preempted under
COMMAND is asked for again and COMMAND started again: `tml_jax.train` resumes.

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
--poll_seconds=N       between looks at the queue: 30
--keep                 leaves the resource there at the end: it goes on costing
--dry_run              prints the commands instead of running them
END
}

parse "name zone topology project num_slices runtime_version capacity \
service_account network max_restarts poll_seconds" "keep dry_run" "$@"
check_name name "name the queued resource"
check_zone
check_topology 'v5p|v6e' \
  "v5p:AxBxC or v6e:AxB (tpu7x through GKE: launch/gke/submit.sh)"
: "${flag[num_slices]:=1}" "${flag[capacity]:=on_demand}"
: "${flag[max_restarts]:=10}" "${flag[poll_seconds]:=30}"
check num_slices '[1-9][0-9]*' "a number of slices"
check capacity 'on_demand|spot|reserved' "one of on_demand, spot, reserved"
check max_restarts '[0-9]+' "a number"
check poll_seconds '[0-9]+' "seconds"
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

create() {
  local words=("${resources[@]}" create "${flag[name]}" "${where[@]}"
    "--accelerator-type=$accelerator"
    "--runtime-version=${flag[runtime_version]}")
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

delete() {
  run "${resources[@]}" delete "${flag[name]}" "${where[@]}" --force --quiet
}

state() {
  "${resources[@]}" describe "${flag[name]}" "${where[@]}" \
    '--format=value(state.state)'
}

# Returns when the slices are there.
wait_until_active() {
  if [[ -n "${flag[dry_run]:-}" ]]; then
    run "${resources[@]}" describe "${flag[name]}" "${where[@]}" \
      '--format=value(state.state)'
    return
  fi
  local now last=""
  while true; do
    now="$(state)"
    if [[ "$now" != "$last" ]]; then
      printf '%s %s is %s\n' "$(date '+%H:%M:%S')" "${flag[name]}" "$now" >&2
      last="$now"
    fi
    case "$now" in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING)
        fail "the queued resource ${flag[name]} is $now: ${resources[*]}" \
          "describe ${flag[name]} ${where[*]} says why"
        ;;
    esac
    sleep "${flag[poll_seconds]}"
  done
}

created=""
cleanup() {
  local status=$?
  if [[ -z "$created" ]]; then return; fi
  if [[ -n "${flag[keep]:-}" ]]; then
    printf 'kept, it goes on costing: %s delete %s %s --force\n' \
      "${resources[*]}" "${flag[name]}" "${where[*]}" >&2
    return
  fi
  delete
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for ((restart = 0; ; restart++)); do
  created=yes # a create that fails half-way leaves a resource too
  create
  wait_until_active
  status=0
  bash launch/install_on_slice.sh "${slices[@]}" "${dry[@]}" &&
    bash launch/on_slice.sh "${slices[@]}" "${dry[@]}" -- \
      "${command_words[@]}" || status=$?
  [[ -z "${flag[dry_run]:-}" && "$status" != 0 ]] || exit "$status"
  sleep "${flag[poll_seconds]}" # the connection breaks before the state says
  now="$(state)"
  case "$now" in
    SUSPENDING | SUSPENDED) ;;
    *) exit "$status" ;; # the slice is there: the command itself failed
  esac
  ((restart < flag[max_restarts])) ||
    fail "${flag[name]} was preempted $((restart + 1)) times: give more" \
      "--max_restarts, or another --capacity"
  printf '%s was preempted: asking for it again\n' "${flag[name]}" >&2
  delete
done
