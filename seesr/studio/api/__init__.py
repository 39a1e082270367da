"""The studio's interfaces over HTTP."""
