"""Evaluation against ground truth: metrics, degradations, reports."""

OURS, BICUBIC = "seesr", "bicubic"
"""Names of the methods in results."""
