#!/usr/bin/env bash
# Makes the environment .venv when it is missing or older than pyproject.toml, then runs what was asked for in it.
set -euo pipefail

self=${BASH_SOURCE[0]}
while [ -L "$self" ]; do # macOS's readlink follows only one link
  link=$(readlink "$self")
  case $link in /*) self=$link ;; *) self=$(dirname "$self")/$link ;; esac
done
root=$(cd -P "$(dirname "$self")/.." && pwd)
venv=$root/.venv
# Present only in a finished environment; its date is the moment when the installation began. It holds the folder that the
# environment was made in: moved, it would not find itself.
finished=$venv/.finished

usage() {
  cat >&2 <<EOF
usage: ${0##*/} setup | upscale ... | tags ... | info ... | weights ... | evaluate ...
       ${0##*/} test [pytest arguments] | benchmark ... | python ...
EOF
  exit 2
}

find_python() {
  local candidate
  for candidate in "${SEESR_PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "seesr: Python 3.11 or newer is needed; install it, or name it in SEESR_PYTHON." >&2
  exit 1
}

is_elsewhere() {
  [ -s "$finished" ] && [ "$(cat "$finished")" != "$root" ]
}

make_environment() {
  local python began
  python=$(find_python)
  began=$(mktemp)
  echo "$root" >"$began"
  echo "seesr: installing into $venv (a few minutes the first time)" >&2
  if is_elsewhere || { [ -x "$venv/bin/python" ] && ! "$venv/bin/python" -c '' 2>/dev/null; }; then
    rm -rf "$venv"
  fi
  rm -f "$finished"
  if command -v uv >/dev/null 2>&1; then
    # uv does not read pip's setting for wheels on disk.
    export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
    [ -x "$venv/bin/python" ] || uv venv --quiet --seed --python "$python" "$venv"
    uv pip install --quiet --python "$venv/bin/python" --editable "$root[test,cog]"
  else
    "$venv/bin/python" -c 'import pip' 2>/dev/null || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root[test,cog]"
  fi
  chmod 644 "$began" # mktemp's files are for one user alone
  mv "$began" "$finished"
}

[ $# -ge 1 ] || usage
command=$1
shift
case $command in
  setup) run=(true) ;;
  upscale | tags | info | weights) run=(seesr "$command" "$@") ;;
  test) run=(python -m pytest "$@") ;;
  evaluate | benchmark) run=(python "$root/scripts/$command.py" "$@") ;;
  python) run=(python "$@") ;;
  *) usage ;;
esac

is_missing() {
  [ ! -e "$finished" ] || [ "$root/pyproject.toml" -nt "$finished" ] || is_elsewhere
}

if is_missing; then
  # One installation at a time: a second caller waits, then finds it done.
  exec 9>"$root/.venv.lock"
  if command -v flock >/dev/null 2>&1; then flock 9; fi
  if is_missing; then make_environment; fi
  exec 9>&-
fi

export PATH=$venv/bin:$PATH
case $command in
  setup) echo "seesr: ready in $venv" >&2 ;;
  test) cd "$root" ;;
esac
exec "${run[@]}"
