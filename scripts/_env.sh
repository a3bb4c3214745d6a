# Sourced by every script here: where things are, and what keeps a run the same on each machine.
# Sets: root (this checkout), cache (outside it), uv (path of the pinned uv, perhaps not there yet).

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/agentkeel
cd "$root"

uv_version=$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements/uv.txt)
uv=$cache/uv-$uv_version/bin/uv

# A developer's own Python settings must not leak into the checkout's environment.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV UV_PROJECT_ENVIRONMENT UV_SYSTEM_PYTHON
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
export PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1

# pyright's wheel fetches its npm package: keep that, pinned to the wheel's version, beside our other downloads.
export PYRIGHT_PYTHON_CACHE_DIR=$cache/pyright PYRIGHT_PYTHON_IGNORE_WARNINGS=1
export npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}
