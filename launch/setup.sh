# shellcheck shell=bash
# Functions that prepare a machine; source this, from the repository root.
# For: launch/test.sh and launch/quickstart.sh. Nothing runs on its own.

CONSTRAINTS=launch/constraints.txt
LOCK=launch/gke/requirements.lock
DEBIAN_PACKAGES=(espeak-ng)
for language in en fr es it ru; do
  # The second one holds the transcripts.
  DEBIAN_PACKAGES+=("asterisk-core-sounds-$language-g722"
    "asterisk-core-sounds-$language")
done

say() { printf '\n== %s\n' "$*"; }

# Uses the active virtual environment, or makes .venv and uses that.
use_venv() {
  if [[ -z "${VIRTUAL_ENV:-}" ]]; then
    if [[ ! -x .venv/bin/python ]]; then
      python3 -c 'import sys
if sys.version_info < (3, 11):
  sys.exit(f"python3 is {sys.version.split()[0]}; Python >= 3.11 is needed")'
      say "making the virtual environment .venv"
      python3 -m venv .venv
    fi
    VIRTUAL_ENV="$PWD/.venv"
  fi
  export VIRTUAL_ENV PATH="$VIRTUAL_ENV/bin:$PATH"
}

# install_python EXTRAS: this package, editable; EXTRAS is "" or "[test]".
# Skipped while setup.py and the constraints are what was installed last.
install_python() {
  local stamp="$VIRTUAL_ENV/tml_jax-installed$1"
  if cat setup.py "$CONSTRAINTS" | cmp -s - "$stamp"; then return; fi
  say "installing Python packages"
  if [[ "$1" == *test* ]]; then
    # First, so that a wheel for CPUs given to pip (--find-links) is taken
    # before transformers asks for any torch.
    python -m pip install -c "$CONSTRAINTS" torch
  fi
  python -m pip install -c "$CONSTRAINTS" -e ".$1"
  cat setup.py "$CONSTRAINTS" >"$stamp"
}

# The versions in the virtual environment, as constraints: neither this
# package nor where a wheel came from.
write_constraints() {
  {
    echo "# What the tests last passed on, with Python 3.11; written by"
    echo "# launch/constraints.sh. Another Python takes the same versions; what"
    echo "# only that Python needs is not held here."
    python -m pip freeze --exclude-editable --exclude tml_jax --exclude uv |
      sed 's/+[A-Za-z0-9.]*$//'
  } >"$CONSTRAINTS"
}

# The same versions of what a slice needs, with the hash of every file that the
# registry has of them: for all systems and Pythons.
write_lock() {
  echo setuptools | uv pip compile --quiet --universal --python-version 3.11 \
    --generate-hashes --no-annotate --extra tpu --extra gcs \
    --constraints "$CONSTRAINTS" \
    --custom-compile-command "bash launch/constraints.sh" \
    --output-file "$LOCK" setup.py -
}

# Recorded prompts, their transcripts, and a synthetic voice.
install_debian_packages() {
  if dpkg -s "${DEBIAN_PACKAGES[@]}" >/dev/null 2>&1; then return; fi
  if ! command -v apt-get >/dev/null || [[ "$(id -u)" != 0 ]]; then
    say "Debian packages are missing: this needs root and apt-get. To have" \
      "them, run: apt-get install ${DEBIAN_PACKAGES[*]}"
    return
  fi
  say "installing Debian packages: ${DEBIAN_PACKAGES[*]}"
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends \
    "${DEBIAN_PACKAGES[@]}"; }; then
    say "Debian packages are missing: apt-get failed (see above)"
  fi
}

# check_and_test ARGUMENTS: format, lint, types, and pytest ARGUMENTS.
check_and_test() {
  say "ruff"
  ruff format --check .
  ruff check .
  say "mypy"
  mypy
  say "pytest $*"
  # Two processes: most of the time is spent in XLA's compiler, on one core.
  python -m pytest -n 2 --dist worksteal "$@"
}
