"""Clients of a studio: its native API with types, blocking and asynchronous.

from seesr.client import Client

with Client("http://127.0.0.1:7860") as studio:
    job = studio.wait(studio.submit(GenerationRequest(options=GenerationOptions(prompt="a cat"))).id)
    content = studio.picture_file(job.pictures[0].id)
"""

from seesr.client.asynchronous import AsyncClient
from seesr.client.blocking import Client
from seesr.client.connection import ADDRESS
from seesr.client.errors import ClientError, ResponseError, UnreachableError, WaitTimeoutError

__all__ = [
    "ADDRESS",
    "AsyncClient",
    "Client",
    "ClientError",
    "ResponseError",
    "UnreachableError",
    "WaitTimeoutError",
]
