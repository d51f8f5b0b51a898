#!/usr/bin/env bash
# The same command on every host of a TPU slice, or of several.
set -euo pipefail
# shellcheck source=launch/cli.sh
source "$(dirname "${BASH_SOURCE[0]}")/cli.sh"

usage() {
  cat <<'END'
usage: bash launch/on_slice.sh --name=NAME --zone=ZONE [flags] -- COMMAND...

Runs COMMAND in ~/tml_jax of every host, in the virtual environment that
launch/install_on_slice.sh made there. Ends when all have ended; fails when one
fails, with a status that is not worth another start if there is one. For
instance:

  bash launch/on_slice.sh --name=pod --zone=us-east5-a -- \
    python -m launch.preflight --distributed --config=... --workdir=...

--name=NAME       of the TPU; with --num_slices=N they are NAME-0 ... NAME-(N-1)
--zone=ZONE       where it is
--project=ID      default: that of gcloud
--num_slices=N    slices that work on one run, made by queued_resource.sh;
                  their runtime tells each how to find the others
--detach          starts COMMAND and leaves it running; its output is in
                  ~/tml_jax.log of each host
--log_dir=DIR     output of each host in a file of its own, on this machine
--no_venv         outside of ~/tml_jax and its environment
--dry_run         prints the commands instead of running them
END
}

parse "name zone project num_slices log_dir" "detach no_venv dry_run" "$@"
check_name name "name the TPU"
check_zone
: "${flag[num_slices]:=1}"
check_count num_slices 1 "a number of slices"
[[ -z "${flag[detach]:-}" || -z "${flag[log_dir]:-}" ]] ||
  fail "--detach leaves no output for --log_dir=${flag[log_dir]}: take one"
need_command

remote="$(quoted_command)"
if [[ -z "${flag[no_venv]:-}" ]]; then
  remote="cd ~/tml_jax && source .venv/bin/activate && $remote"
fi
if [[ -n "${flag[detach]:-}" ]]; then
  remote="nohup bash -c $(printf '%q' "$remote") >~/tml_jax.log 2>&1 </dev/null &"
fi

names=("${flag[name]}")
if ((flag[num_slices] > 1)); then
  names=()
  for ((i = 0; i < flag[num_slices]; i++)); do
    names+=("${flag[name]}-$i")
  done
fi

pids=()
for name in "${names[@]}"; do
  words=(gcloud compute tpus tpu-vm ssh "$name" "--zone=${flag[zone]}"
    --worker=all --quiet) # on all at once: jax waits for every host
  [[ -z "${flag[project]:-}" ]] || words+=("--project=${flag[project]}")
  if [[ -n "${flag[log_dir]:-}" ]]; then
    run mkdir -p "${flag[log_dir]}/$name"
    words+=("--output-directory=${flag[log_dir]}/$name")
  fi
  words+=("--command=$remote")
  if [[ -n "${flag[dry_run]:-}" ]]; then
    run "${words[@]}"
  else
    "${words[@]}" &
    pids+=($!)
  fi
done
status=0
for i in "${!pids[@]}"; do
  wait "${pids[i]}" || {
    found=$?
    printf 'error: %s: the command failed on it (exit %d)\n' \
      "${names[i]}" "$found" >&2
    is_final "$status" || status=$found
  }
done
exit "$status"
