"""OpenAI's API of images, `/v1`, as its clients speak it: generations, edits, and the list of models."""
