"""A worker in a process of its own, which a crash, a hang or the system may end without harm to the server."""
