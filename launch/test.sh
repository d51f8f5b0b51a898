#!/usr/bin/env bash
# Sets up what the tests need, then checks format, lint and runs the tests.
#   bash launch/test.sh                      all but the slow ones
#   bash launch/test.sh -m ''                all
#   bash launch/test.sh tests/test_config.py -x     arguments go to pytest
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
exec python -m pytest "$@"
