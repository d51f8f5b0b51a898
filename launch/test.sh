#!/usr/bin/env bash
# Sets up what the tests need, then checks format, lint and types and runs
# the tests.
#   bash launch/test.sh                      all but the slow ones
#   bash launch/test.sh -m slow              the slow ones; they need libtpu
#   bash launch/test.sh -m ''                all
#   bash launch/test.sh tests/config/test_config.py -x     arguments go to pytest
#   bash launch/test.sh -n 0 ...             in one process, for a debugger
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

extras="[test]" slow=no
for argument in "$@"; do
  # Whoever chooses by mark may choose slow tests, which compile for TPUs.
  if [[ "$argument" == -m* ]]; then extras="[test,tpu]" slow=yes; fi
done
if [[ "$slow" == no ]]; then
  # Fast tests compile much and compute little: half of XLA's time is LLVM's.
  # What is in XLA_FLAGS already comes later, and counts.
  export XLA_FLAGS="--xla_backend_optimization_level=0 ${XLA_FLAGS:-}"
fi

use_venv
install_python "$extras"
DEBIAN_PACKAGES+=(chromium) # tests of the page; nothing else needs it
install_debian_packages
check_and_test "$@"
