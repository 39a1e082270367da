#!/usr/bin/env bash
# The server's long run: 300 predictions, 200 requests of 8 clients, and 2,000 fuzz cases.
set -euo pipefail
start=$(dirname "${BASH_SOURCE[0]}")/start_seesr.sh
"$start" python "${BASH_SOURCE[0]%.sh}.py" "$@"
"$start" test tests/test_server.py -k breaks_it --hypothesis-profile=long --hypothesis-show-statistics
