"""The `seesr` command, one file a sub-command."""

from seesr.cli.app import main

__all__ = ["main"]
