"""A studio with a server and two users, for the tests of its clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from studio_server import PASSWORD, ServedStudio, serving

from seesr.client import Client


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    """A studio with a server, whose admin is anna and whose other user is ben."""
    with serving(tmp_path_factory.mktemp("studio"), "anna", "ben") as served:
        yield served


@pytest.fixture
def anna(served: ServedStudio) -> Iterator[Client]:
    """The admin's client, which has a key."""
    with Client(served.address, key=served.key("anna")) as client:
        yield client


@pytest.fixture
def ben(served: ServedStudio) -> Iterator[Client]:
    """The other user's, which logs in by name and password."""
    with Client(served.address, user=("ben", PASSWORD)) as client:
        yield client
