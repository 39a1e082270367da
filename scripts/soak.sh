#!/usr/bin/env bash
# The server's long run: 300 predictions, 200 requests of 8 clients, and 2,000 fuzz cases.
set -euo pipefail
start=$(dirname "${BASH_SOURCE[0]}")/start_seesr.sh
failed=0
"$start" python "${BASH_SOURCE[0]%.sh}.py" "$@" || failed=1
"$start" test tests/test_server.py -k breaks_it --hypothesis-profile=long --hypothesis-show-statistics || failed=1
exit $failed
