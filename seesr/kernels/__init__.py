"""Faster or more exact forms of stock layers: each file is one idea with one function that switches it on."""
