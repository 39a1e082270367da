"""The studio: a server that keeps jobs, users and pictures, and gives the jobs to workers."""
