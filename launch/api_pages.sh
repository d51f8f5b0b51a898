#!/usr/bin/env bash
# Public docstrings as HTML pages, with the source beside them:
#   bash launch/api_pages.sh [DIR]      ./build/api if nothing is said
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

dir="${1:-build/api}"
use_venv
install_python "[docs]"
python -m pdoc --docformat google --no-show-source -o "$dir" \
  tml_jax '!tml_jax.*__main__'
say "$dir/index.html"
