#!/usr/bin/env bash
# A run on TPU slices of a GKE cluster: fills in jobset.yaml and submits it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/cli.sh

usage() {
  cat <<'END'
usage: bash launch/gke/submit.sh --name=NAME --topology=v5p:8x8x8 \
         --image=IMAGE --bucket=BUCKET [flags] -- COMMAND...

Runs COMMAND in every pod of a JobSet of the current kubectl context, with the
bucket mounted at /bucket. The cluster has the JobSet controller, the Cloud
Storage FUSE driver and a node pool of the topology for each slice.

--name=NAME            of the JobSet; pods are NAME-slice-S-H
--topology=FAMILY:AxB  v5p:AxBxC, v6e:AxB or tpu7x:AxBxC
--image=IMAGE          built from launch/gke/Dockerfile
--bucket=BUCKET        its name, without gs://
--num_slices=N         slices of this topology
--service_account=A    of Kubernetes, with rights on the bucket: default
--max_restarts=N       times that all pods start again after a failure: 50;
                       never after one that comes back (docs/reliability.md)
--dry_run              prints the manifest instead of submitting it
END
}

parse "name topology image bucket num_slices service_account max_restarts" \
  "dry_run" "$@"
check name '[a-z]([a-z0-9-]{0,38}[a-z0-9])?' \
  "name the run, at most 40 lower-case letters, digits and -"
check_topology 'v5p|v6e|tpu7x' "v5p:AxBxC, v6e:AxB or tpu7x:AxBxC"
check image '[a-z0-9][a-zA-Z0-9./:@_-]*' "the image with the code and jax"
check bucket '[a-z0-9][a-z0-9._-]*[a-z0-9]' "a bucket's name, without gs://"
: "${flag[num_slices]:=1}" "${flag[max_restarts]:=50}"
: "${flag[service_account]:=default}"
check_count num_slices 1 "a number of slices"
check_count max_restarts 0 "a number"
check service_account '[a-z0-9]([a-z0-9.-]*[a-z0-9])?' "a service account"
need_command

chips="$(chips_of "${flag[topology]}")"
of_host=4 # in machines for slices: ct5p-hightpu-4t, ct6e-standard-4t, tpu7x
((chips % of_host == 0)) ||
  fail "--topology=${flag[topology]} has $chips chips and a host $of_host:" \
    "take a multiple"
case "${flag[topology]}" in
  tpu7x:*) accelerator=tpu7x ;;
  *) accelerator="tpu-${flag[topology]%%:*}-slice" ;;
esac

manifest="$(grep -v '^#' launch/gke/jobset.yaml)"
fill() { manifest="${manifest//"\${$1}"/"$2"}"; }
# A JSON string is a YAML string; exec hands SIGTERM to the command.
word="$(quoted_command)"
word="${word//\\/\\\\}"
fill COMMAND "\"exec ${word//\"/\\\"}\""
fill NAME "${flag[name]}"
fill MAX_RESTARTS "${flag[max_restarts]}"
fill NUM_SLICES "${flag[num_slices]}"
fill HOSTS "$((chips / of_host))"
fill SERVICE_ACCOUNT "${flag[service_account]}"
fill ACCELERATOR "$accelerator"
fill TOPOLOGY "${flag[topology]#*:}"
fill IMAGE "${flag[image]}"
fill CHIPS_OF_HOST "$of_host"
fill BUCKET "${flag[bucket]}"
statuses="${final_statuses[*]}"
fill FINAL_STATUSES "${statuses// /, }"

if [[ -n "${flag[dry_run]:-}" ]]; then
  printf '%s\n' "$manifest"
else
  # Not apply, which would change a JobSet of this name that is there already.
  printf '%s\n' "$manifest" | kubectl create -f -
fi
