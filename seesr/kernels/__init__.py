"""Faster or more exact replacements of stock layers; each file holds one of them and the function that enables it."""
