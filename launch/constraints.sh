#!/usr/bin/env bash
# Takes the newest version of every package that setup.py allows, runs all
# tests and, when they pass, writes what they passed on as
# launch/constraints.txt, and with hashes for the image as
# launch/gke/requirements.lock. Needs Python 3.11; takes hours.
#   bash launch/constraints.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

use_venv
python -c 'import sys
if sys.version_info[:2] != (3, 11):
  sys.exit(f"this is Python {sys.version.split()[0]}: the constraints are those"
           " of 3.11, the oldest that runs; make the environment with python3.11")'
say "upgrading Python packages"
python -m pip install --upgrade --upgrade-strategy eager \
  -e ".[test,eval,docs,tpu]" uv
DEBIAN_PACKAGES+=(chromium) # tests of the page; nothing else needs it
install_debian_packages
check_and_test -m ''
write_constraints
write_lock
say "$CONSTRAINTS: $(grep -c == "$CONSTRAINTS") packages"
