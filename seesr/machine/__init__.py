"""The machine: devices, memory, the allocator, the thread that computes."""
