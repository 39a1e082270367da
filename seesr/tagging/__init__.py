"""RAM with DAPE: recognises what is in a picture, as tags and image tokens; and the prompt made of the tags."""
