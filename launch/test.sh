#!/usr/bin/env bash
# Sets up what the tests need, then checks format, lint and runs the tests.
#   bash launch/test.sh                      all but the slow ones
#   bash launch/test.sh -m ''                all
#   bash launch/test.sh tests/config/test_config.py -x     arguments go to pytest
#   bash launch/test.sh -n 0 ...             in one process, for a debugger
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

use_venv
install_python "[test]"
install_debian_packages

say "ruff"
ruff format --check .
ruff check .

say "pytest $*"
# Two processes: most of the time is spent in XLA's compiler, on one core.
exec python -m pytest -n 2 --dist worksteal "$@"
