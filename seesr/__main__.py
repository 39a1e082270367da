"""`python -m seesr` is the `seesr` command."""

from seesr.cli.app import main

main()
