"""The user's models: what is there and what it is, getting more, keeping them whole."""
