#!/usr/bin/env bash
# Makes the environment .venv, or brings it up to date, with what the command needs; then runs the command in it.
set -euo pipefail

root=$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
venv=$root/.venv
constraints=$root/scripts/constraints.txt

extra=core # the dependencies without an extra
case ${1:-} in
  "")
    echo "usage: ${0##*/} setup | check | test [pytest arguments] | evaluate ... | benchmark ... | python ..." >&2
    echo "       ${0##*/} upscale ... | studio ... | any other command of seesr" >&2
    exit 2
    ;;
  setup) run=(echo "seesr: ready in $venv") ;;
  test) extra=test run=(python -m pytest --numprocesses=2 "${@:2}") ;; # `-n 0` in the arguments: in this process
  check) extra=test run=(bash -ec 'ruff check; ruff format --check; lint-imports; basedpyright; python -m scripts.make_schema --check') ;;
  evaluate) extra=evaluate run=(python "$root/scripts/evaluate.py" "${@:2}") ;;
  benchmark) run=(python "$root/scripts/benchmark" "${@:2}") ;;
  studio) extra=studio run=(seesr "$@") ;;
  python) extra=test run=("$@") ;; # what lies in scripts/ imports more than the package does
  *) run=(seesr "$@") ;;
esac

# Each extra that is installed has a marker. It holds the folder that the environment was made in: moved, an environment does
# not find itself. Its date is the moment when the installation began.
marker=$venv/.finished

is_of_here() {
  [ "$(cat "$marker-$1" 2>/dev/null)" = "$root" ]
}

is_installed() {
  is_of_here "$extra" && ! [ "$root/pyproject.toml" -nt "$marker-$extra" ] && ! [ "$constraints" -nt "$marker-$extra" ]
}

find_python() {
  for python in "${SEESR_PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then return; fi
  done
  echo "seesr: Python 3.11 or newer is needed; install it, or name it in SEESR_PYTHON." >&2
  exit 1
}

install() {
  echo "seesr: installing into $venv (a few minutes the first time)" >&2
  local uv package=$root links=${PIP_FIND_LINKS:-}
  uv=$(command -v uv || true)
  export UV_FIND_LINKS=${UV_FIND_LINKS:-${links// /,}} # uv does not read pip's setting for wheels on disk
  if ! is_of_here core || ! "$venv/bin/python" -c '' 2>/dev/null; then
    find_python
    rm -rf "$venv"
    if [ "$uv" ]; then uv venv --quiet --seed --python "$python" "$venv"; else "$python" -m venv "$venv"; fi
  fi
  echo "$root" >"$venv/.began"
  if [ $extra != core ]; then package+="[$extra]"; fi
  set -- install --quiet --constraint "$constraints" --editable "$package"
  if [ "$uv" ]; then uv pip "$@" --python "$venv/bin/python"; else "$venv/bin/python" -m pip "$@" --disable-pip-version-check; fi
  cp -p "$venv/.began" "$marker-core"
  mv "$venv/.began" "$marker-$extra"
}

if ! is_installed; then
  # One installation at a time: a second caller waits, then finds it done.
  exec 9>"$root/.venv.lock"
  if command -v flock >/dev/null; then flock 9; fi
  if ! is_installed; then install; fi
  exec 9>&-
fi

export PATH=$venv/bin:$PATH
case $1 in test | check) cd "$root" ;; esac
exec "${run[@]}"
