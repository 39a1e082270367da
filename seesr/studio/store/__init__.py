"""The studio's store: jobs with their queue, pictures and users, in SQLite or PostgreSQL."""

from seesr.studio.store.database import sqlite_url
from seesr.studio.store.store import Store
from seesr.studio.store.users import KeyRecord, SessionRecord

__all__ = ["KeyRecord", "SessionRecord", "Store", "sqlite_url"]
