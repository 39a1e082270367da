"""Version 2: the gallery: favourites, tags and the trash of pictures, what they are found by, and boards."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from seesr.studio.store.terms import picture_terms

revision = "0002"
down_revision = "0001"
PAGE = 500


def upgrade() -> None:
    """Adds the columns and tables, and what the pictures there are found by."""
    with op.batch_alter_table("pictures") as pictures:
        pictures.add_column(sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
        pictures.add_column(sa.Column("favourite", sa.Boolean(), nullable=False, server_default=sa.false()))
        pictures.add_column(sa.Column("trashed", sa.DateTime(), nullable=True))
        pictures.drop_index("ix_pictures_user_number")
    with op.batch_alter_table("pictures") as pictures:  # the defaults were for the rows that are there
        pictures.alter_column("tags", existing_type=sa.JSON(), server_default=None)
        pictures.alter_column("favourite", existing_type=sa.Boolean(), server_default=None)
    op.create_index("ix_pictures_user_created_number", "pictures", ["user", "created", "number"])
    op.create_index("ix_pictures_user_favourite_created_number", "pictures", ["user", "favourite", "created", "number"])
    op.create_index("ix_pictures_user_digest", "pictures", ["user", "digest"])
    op.create_index("ix_pictures_trashed", "pictures", ["trashed"])
    terms = op.create_table(
        "terms",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("term", sa.String(), nullable=False),
        sa.Column("picture", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["picture"], ["pictures.number"], name="fk_terms_picture", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("kind", "term", "picture", name="pk_terms"),
    )
    op.create_index("ix_terms_picture", "terms", ["picture"])
    op.create_table(
        "boards",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_boards"),
        sa.UniqueConstraint("user", "name", name="uq_boards_user_name"),
    )
    op.create_table(
        "board_pictures",
        sa.Column("board", sa.String(), nullable=False),
        sa.Column("picture", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["board"], ["boards.id"], name="fk_board_pictures_board", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["picture"], ["pictures.number"], name="fk_board_pictures_picture", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("board", "picture", name="pk_board_pictures"),
    )
    op.create_index("ix_board_pictures_picture", "board_pictures", ["picture"])
    _fill(op.get_bind(), terms)


def _fill(connection: sa.Connection, terms: sa.Table) -> None:
    query, last = sa.text("SELECT number, settings FROM pictures WHERE number > :last ORDER BY number LIMIT :count"), 0
    while rows := connection.execute(query, {"last": last, "count": PAGE}).all():
        found = [
            {"kind": kind, "term": term, "picture": number}
            for number, settings in rows
            for kind, term in picture_terms(json.loads(settings) if isinstance(settings, str) else settings, [])
        ]
        if found:
            connection.execute(terms.insert(), found)
        last = rows[-1].number
