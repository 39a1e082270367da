"""Measures results against ground truth: metrics, degradations, reports."""

OURS, BICUBIC = "seesr", "bicubic"
"""Methods, as figures name them."""
