"""`python -m seesr` is the `seesr` command."""

from seesr.cli import main

main()
