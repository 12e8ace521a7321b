# Sourced by the scripts beside it: where the checkout is, and how they speak.
# shellcheck shell=bash

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script=$(basename "$0")
readonly root script

say()
{
    printf '%s: %s\n' "$script" "$*"
}

# fail EXIT_CODE WORDS...: codes as sysexits.h has them.
fail()
{
    local code=$1
    shift
    printf '%s: %s\n' "$script" "$*" >&2
    exit "$code"
}

# shellcheck disable=SC2034
readonly EX_USAGE=64 EX_UNAVAILABLE=69 EX_SOFTWARE=70

# The libraries that scripts/setup built, if it had to, before the system's.
use_built_libraries()
{
    if [ -d "$root/.deps/lib/pkgconfig" ]; then
        export PKG_CONFIG_PATH="$root/.deps/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
    fi
}
