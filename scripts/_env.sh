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
# Trust the certificates the machine trusts (a company's own, say); where it has none, uv brings its own.
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    [[ ! -s $bundle ]] || export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}
done
export PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1

# pyright's wheel carries the type checker; node runs it. Whatever it fetches besides stays out of the checkout.
unset PYRIGHT_PYTHON_FORCE_VERSION PYRIGHT_PYTHON_PYLANCE_VERSION
export PYRIGHT_PYTHON_CACHE_DIR=$cache/pyright PYRIGHT_PYTHON_IGNORE_WARNINGS=1

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

# Tests start a PostgreSQL server of their own; nothing here runs one for the machine.
need_postgres() {
    local programs=(/usr/lib/postgresql/*/bin/initdb)
    [[ ! -x ${programs[0]} ]] && ! command -v initdb >/dev/null || return 0
    command -v apt-get >/dev/null || fail "no PostgreSQL server programs here; install them (initdb and postgres on PATH)"
    [[ $EUID -eq 0 ]] || fail "no PostgreSQL server programs here; install them: sudo apt-get install postgresql"
    printf 'installing the package postgresql\n' >&2
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)
    "${install[@]}" postgresql-common >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}" postgresql-common >/dev/null; } \
        || fail "could not install the package postgresql-common; see the message above"
    # Only the programs are wanted: no cluster is made, so no server is started.
    printf 'create_main_cluster = false\n' >>/etc/postgresql-common/createcluster.conf
    "${install[@]}" postgresql >/dev/null || fail "could not install the package postgresql; see the message above"
}
