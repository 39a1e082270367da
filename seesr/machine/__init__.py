"""The machine: devices, memory, the allocator, out-of-memory errors, and the thread that computes in a server."""
