#!/usr/bin/env bash
# Puts this checkout's last commit on every host of a slice and installs it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/cli.sh

usage() {
  cat <<'END'
usage: bash launch/install_on_slice.sh --name=NAME --zone=ZONE [flags]

Copies the commit that is checked out here (as a git bundle: no credentials on
the hosts, and the hash stays known) to ~/tml_jax of every host and installs it
into ~/tml_jax/.venv with jax for TPUs. Run it again for a newer commit. Needs
Python >= 3.11 on the hosts, or apt-get to install it.

--name=NAME       of the TPU; with --num_slices=N they are NAME-0 ... NAME-(N-1)
--zone=ZONE       where it is
--project=ID      default: that of gcloud
--num_slices=N    slices
--dry_run         prints the commands instead of running them
END
}

parse "name zone project num_slices" "dry_run" "$@"
check_name name "name the TPU"
check_zone
: "${flag[num_slices]:=1}"
check_count num_slices 1 "a number of slices"
((${#command_words[@]} == 0)) || fail "this takes no command"
check_committed

where=("--zone=${flag[zone]}")
[[ -z "${flag[project]:-}" ]] || where+=("--project=${flag[project]}")
bundle="$(mktemp -d)/tml_jax.bundle"
trap 'rm -rf "$(dirname "$bundle")"' EXIT
run git bundle create "$bundle" HEAD
for ((i = 0; i < flag[num_slices]; i++)); do
  name="${flag[name]}"
  ((flag[num_slices] == 1)) || name+="-$i"
  run gcloud compute tpus tpu-vm scp "$bundle" "$name:tml_jax.bundle" \
    "${where[@]}" --worker=all --quiet
done

# On the hosts, in one line. What somebody changed there is not overwritten; what
# an installation left that was cut off is.
# shellcheck disable=SC2016  # expanded there
install='set -e; cd; [ -d tml_jax/.git ] || git init -q tml_jax;
cd tml_jax; git fetch -q ../tml_jax.bundle HEAD; force=;
if [ -e .git/installing ]; then force=-f;
elif git rev-parse -q --verify HEAD >/dev/null && ! git diff --quiet HEAD; then
echo "error: ~/tml_jax of $(hostname) has changes: commit or remove them" >&2;
exit 2; fi;
touch .git/installing; git checkout -q $force FETCH_HEAD; rm .git/installing;
find_python() { for p in python3.13 python3.12 python3.11; do
if $p -c "import ensurepip" 2>/dev/null; then echo $p; return; fi; done; };
if [ ! -x .venv/bin/python ]; then python=$(find_python);
if [ -z "$python" ]; then sudo apt-get update -qq;
sudo apt-get install -y -qq python3.11 python3.11-venv; python=python3.11; fi;
$python -m venv .venv; fi;
.venv/bin/pip install -q -e ".[tpu]"; git rev-parse HEAD'
bash launch/on_slice.sh "--name=${flag[name]}" "${where[@]}" \
  "--num_slices=${flag[num_slices]}" --no_venv \
  ${flag[dry_run]:+--dry_run} -- bash -c "${install//$'\n'/ }"
