"""The store's versions, each made from the one before."""
