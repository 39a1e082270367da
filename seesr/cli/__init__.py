"""The `seesr` command, one file per sub-command."""

from seesr.cli.app import main

__all__ = ["main"]
