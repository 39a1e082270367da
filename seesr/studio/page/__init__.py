"""The page: a thin translation of fields in a browser into the studio's jobs, over Gradio.

Gradio draws the fields and calls the handlers, each a short request without its queue. What runs is told by the events
of the API, and pictures come from and go to the API alone, so that Gradio keeps no file of anybody's.
"""
