"""Training of the embedded model, one command a stage; see `__main__.py`."""
