"""The benchmark of a picture's stages: `scripts/start_seesr.sh benchmark`; see `command.py`."""
