"""The store: jobs, pictures with their boards, and users in one database."""

from __future__ import annotations

from seesr.studio.store.boards import BoardStore
from seesr.studio.store.jobs import JobStore
from seesr.studio.store.pictures import PictureStore
from seesr.studio.store.users import UserStore
from seesr.studio.store.webhooks import WebhookStore


class Store(JobStore, PictureStore, BoardStore, UserStore, WebhookStore):
    """What the studio keeps, in SQLite or PostgreSQL. Threads may share it."""
