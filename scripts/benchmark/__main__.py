"""Runs the benchmark as a command beside those of `seesr`, whose errors are one sentence."""

from __future__ import annotations

import sys

from scripts.benchmark.command import benchmark
from seesr.cli.app import app
from seesr.cli.app import main as seesr


def main() -> None:
    """Entry point."""
    app.command()(benchmark)
    sys.argv = ["start_seesr.sh", "benchmark", *sys.argv[1:]]
    seesr()


if __name__ == "__main__":
    main()
