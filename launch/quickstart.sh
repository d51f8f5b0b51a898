#!/usr/bin/env bash
# From nothing to a trained model that talks, at `tiny` size on a CPU:
#   bash launch/quickstart.sh [DIR] [FLAGS OF TRAIN...]
# Needs Python >= 3.11 and pip. Everything goes into DIR (./quickstart). A
# stage that failed or was killed goes on where it stopped when the same
# command is run again. Prompts and espeak-ng come from Debian where apt-get
# is there (unpacked into DIR without root), else procedural voices are used.
set -euo pipefail
usage="usage: bash launch/quickstart.sh [DIR] [--config.train.steps=N ...]"
case "${1:-}" in -*) echo "$usage" >&2; exit 2 ;; esac
dir="${1:-./quickstart}"
shift || true
train_flags=("$@")
mkdir -p "$dir"
dir="$(cd "$dir" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

stage=""
stage_names=()
stage_seconds=()
stages=6

# begin TITLE: the stage before this one is over.
begin() {
  finish_stage
  stage="$*"
  stage_start=$SECONDS
  say "stage $((${#stage_names[@]} + 1)) of $stages: $stage"
}

finish_stage() {
  if [[ -z "$stage" ]]; then return; fi
  stage_names+=("$stage")
  stage_seconds+=($((SECONDS - stage_start)))
  printf -- '-- %s: %s\n' "$stage" "$(clock "${stage_seconds[-1]}")"
  stage=""
}

clock() { printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); }

on_exit() {
  local status=$?
  if ((status == 0)); then return; fi
  {
    printf '\n== the stage "%s" failed (exit %d); the reason is above.\n' \
      "$stage" "$status"
    printf 'To go on with it: bash launch/quickstart.sh %q' "$dir"
    ((${#train_flags[@]})) && printf ' %q' "${train_flags[@]}"
    printf '\n'
  } >&2
}
trap on_exit EXIT

make_venv() {
  local venv="$dir/venv"
  if [[ ! -x "$venv/bin/pip" ]]; then
    python3 -c 'import sys
if sys.version_info < (3, 11):
  sys.exit(f"python3 is {sys.version.split()[0]}; Python >= 3.11 is needed")'
    if python3 -c 'import ensurepip' 2>/dev/null; then
      python3 -m venv "$venv"
    else # Debian without python3-venv: pip installs itself
      python3 -m venv --without-pip "$venv"
      python3 -m pip --python "$venv/bin/python" install pip
    fi
  fi
  VIRTUAL_ENV="$venv"
  use_venv
}

# Sets `sounds_root` and returns 0 when the recorded prompts and espeak-ng are
# to be had.
find_prompts() {
  sounds_root=/
  if dpkg -s "${DEBIAN_PACKAGES[@]}" >/dev/null 2>&1; then return; fi
  command -v apt-get >/dev/null || return
  if [[ "$(id -u)" == 0 ]]; then
    install_debian_packages
    dpkg -s "${DEBIAN_PACKAGES[@]}" >/dev/null 2>&1
    return
  fi
  sounds_root="$dir/debs/root"
  if [[ ! -e "$dir/debs/complete" ]]; then unpack_prompts || return; fi
  PATH="$dir/debs/bin:$PATH"
  espeak-ng --voices >/dev/null
}

# The same packages without root: downloaded and unpacked into DIR/debs.
unpack_prompts() {
  local debs="$dir/debs" missing deb
  mkdir -p "$debs"/{state/lists,cache/archives}/partial "$debs"/{deb,root,bin}
  printf '%s\n' "Dir::State \"$debs/state\";" "Dir::Cache \"$debs/cache\";" \
    'Dir::State::status "/var/lib/dpkg/status";' >"$debs/apt.conf"
  local -x APT_CONFIG="$debs/apt.conf" LC_ALL=C
  say "unpacking into $debs: ${DEBIAN_PACKAGES[*]}"
  apt-get update -qq || return
  # What espeak-ng needs besides itself and is not installed.
  missing="$(apt-get -s install --no-install-recommends espeak-ng |
    awk '$1 == "Inst" {print $2}')" || return
  # shellcheck disable=SC2086  # a list of names
  (cd "$debs/deb" && apt-get download -qq $missing "${DEBIAN_PACKAGES[@]}") ||
    return
  for deb in "$debs"/deb/*.deb; do
    dpkg-deb -x "$deb" "$debs/root" || return
  done
  local libraries data
  libraries="$(find "$debs/root" -path '*/lib/*' -name '*.so*' \
    -printf '%h\n' | sort -u | paste -sd:)"
  if ! command -v espeak-ng >/dev/null; then
    data="$(find "$debs"/root/usr/lib -type d -name espeak-ng-data)"
    printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" ESPEAK_DATA_PATH="%s" exec "%s" "$@"\n' \
      "$libraries" "$(dirname "$data")" "$debs/root/usr/bin/espeak-ng" \
      >"$debs/bin/espeak-ng"
    chmod +x "$debs/bin/espeak-ng"
  fi
  touch "$debs/complete"
}

# Large buffers on huge pages: glibc else takes 90,000 fresh pages a train step
# from the kernel and gives them back, a sixth of the step's time.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

printf 'quickstart into %s: about 12 minutes on 2 idle cores, longer on busy ones\n' "$dir"

begin "virtual environment and Python packages"
make_venv
install_python "[serve]"

begin "voices"
if find_prompts; then
  size=tiny
  echo "VOICES: recorded prompts in five languages and espeak-ng"
else
  size=tiny_procedural sounds_root=/
  echo "VOICES: procedural ones; the Debian packages with recorded prompts" \
    "cannot be had here (${DEBIAN_PACKAGES[*]})"
fi
config="experiments/interaction.py:$size"
data="$dir/$size/data" run="$dir/$size/run" session="$dir/$size/session"

begin "prepare the data"
python -m tml_jax.prepare --config="$config" --data_dir="$data" \
  --sounds_root="$sounds_root"

begin "train $size"
python -m tml_jax.train --config="$config" --data_dir="$data" \
  --workdir="$run" "${train_flags[@]}"

begin "evaluate on held-out conversations"
python -m tml_jax.evaluate --workdir="$run" --data_dir="$data" |
  tee "$dir/$size/evaluation.txt"

begin "sample one held-out conversation"
python -m tml_jax.sample --workdir="$run" --data_dir="$data" \
  --scenario=heldout:0 --out="$session"
finish_stage

say "done in $(clock "$SECONDS")"
for i in "${!stage_names[@]}"; do
  printf '%14s  %s\n' "$(clock "${stage_seconds[i]}")" "${stage_names[i]}"
done
cat <<END

picture      $session/session.png
sound        $session/conversation.wav (user left, agent right), agent.wav
transcript   $session/transcript.txt, tick log ticks.jsonl
evaluation   $run/evaluation.json and .html
metrics      $run/metrics.jsonl; as curves, which needs a package:
             $dir/venv/bin/python -m pip install tensorboard
             $dir/venv/bin/tensorboard --logdir $run/tb

END
cat "$dir/$size/evaluation.txt"
cat <<END

Another conversation: $dir/venv/bin/python -m tml_jax.sample \\
  --workdir=$run --data_dir=$data --scenario=heldout:1 --out=$session-1
Your own voice, in any sound file: --input=FILE instead of --scenario
Your own voice, live, in a browser: $dir/venv/bin/python -m tml_jax.serve \\
  --workdir=$run --data_dir=$data
END
