"""RAM and DAPE: what is in a picture, as tags and image tokens."""
