"""The gallery over a real server: finding, keeping, collecting, removing with undo, downloading."""

from __future__ import annotations

import asyncio
import io
import os
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from job_requests import generation
from picture_records import add_picture
from PIL import Image
from sqlalchemy import update
from stand_in_worker import StandInWorker, picture
from studio_server import ServedStudio, studio_app

from seesr.client import AsyncClient, Client, ResponseError
from seesr.jobs import JobEvent, JobRequest, UpscaleRequest, content_hash
from seesr.studio.imports import import_folder
from seesr.studio.limits import OperatorLimits
from seesr.studio.records import PictureSearch, User
from seesr.studio.settings import StudioSettings
from seesr.studio.store.tables import PictureRow
from seesr.studio.studio import Studio

BEN = User(name="ben")


def found(client: Client, of: str | None = None, **search: object) -> list[str]:
    return [picture.id for picture in client.pictures(of=of, search=PictureSearch.model_validate(search)).pictures]


def test_a_made_picture_is_found_by_what_made_it(ben: Client) -> None:
    job = ben.wait(ben.submit(generation("A Crystal-clear lake, 東京の湖")).id, timeout=20)
    (picture,) = job.pictures
    for text in ("crystal LAKE", "lake", "湖 東", ""):
        assert picture.id in found(ben, words=text)
    for text in ("crystals", "lake sea", "海"):
        assert picture.id not in found(ben, words=text)


class Tagging(StandInWorker):
    """A worker that tells what RAM found."""

    def run(self, job: str, request: JobRequest, inputs: Mapping[str, bytes], emit: Callable[[JobEvent], None]) -> None:
        def tell(event: JobEvent) -> None:
            found = {"record": {"tags": {"lake": 0.9, "Boat": 0.8}}} if event.kind == "picture" else {}
            emit(event.model_copy(update={"data": event.data | found}))

        super().run(job, request, inputs, tell)


def test_tags_of_ram_come_with_an_upscaled_picture(tmp_path: Path) -> None:
    with Studio.open(tmp_path, StudioSettings(), {"cpu": Tagging()}) as studio:
        content = picture(64)
        request = UpscaleRequest(task="upscale", image=content_hash(content))
        (made,) = studio.wait(BEN, studio.submit(BEN, request, {content_hash(content): content}).id, 20).pictures
        assert made.tags == ["lake", "Boat"]
        assert studio.pictures(BEN, search=PictureSearch(tags=("boat",))) == [made]


def test_marks_and_tags(served: ServedStudio, ben: Client) -> None:
    picture, _ = add_picture(served.studio, "ben", settings={"weights": "SD Turbo", "loras": {"Watercolour": "12ab"}})
    changed = ben.change_picture(picture.id, favourite=True, tags=["Holiday", "sea", "Holiday"])
    assert (changed.favourite, changed.tags) == (True, ["Holiday", "sea"])
    assert ben.picture(picture.id) == changed
    for search in (
        {"tags": ("holiday", "SEA")},
        {"lora": "watercolour"},
        {"checkpoint": "sd turbo"},
        {"ids": (picture.id,)},
    ):
        assert found(ben, **search) == [picture.id]
    assert picture.id in found(ben, favourite=True)
    assert ("holiday", 1) in [(term.name, term.count) for term in ben.terms("tag")]
    ben.change_picture(picture.id, tags=["sea"])
    assert ben.picture(picture.id).favourite
    assert found(ben, tags=("holiday",)) == []
    made = ben.picture(picture.id).created
    assert picture.id in found(ben, since=made, until=made + timedelta(seconds=1))
    assert picture.id not in found(ben, until=made)


def test_deleting_can_be_undone_until_the_trash_is_emptied(served: ServedStudio, ben: Client) -> None:
    job = ben.wait(ben.submit(generation("to be thrown away", batch_count=2)).id, timeout=20)
    kept, gone = (picture.id for picture in job.pictures)
    content = ben.picture_file(gone)
    ben.trash([kept, gone])
    assert {kept, gone} <= {*found(ben, trash=True)}
    assert not {kept, gone} & {*found(ben)}
    assert ben.job(job.id).pictures == []
    assert ben.thumbnail(gone)  # for who looks for what to restore
    with pytest.raises(ResponseError, match="in the trash") as refused:
        ben.picture_file(gone)
    assert refused.value.status == 404
    ben.restore([kept, gone])
    assert ben.picture_file(gone) == content
    assert [picture.id for picture in ben.job(job.id).pictures] == [kept, gone]
    with pytest.raises(ResponseError, match="no picture"):
        ben.trash([kept, "unknown"])
    assert kept in found(ben)  # all or none
    ben.remove_picture(gone)
    files = served.studio.files
    record = ben.picture(gone)
    assert ben.empty_trash() == 1
    assert not files.path(record).exists()
    assert list(files.root.glob(f"*/*/{gone}*")) == []
    with pytest.raises(ResponseError, match="no picture"):
        ben.restore([gone])


def test_the_trash_is_emptied_after_the_operators_time(tmp_path: Path) -> None:
    with studio_app(tmp_path, limits=OperatorLimits(trash_days=2)) as served:
        studio, local = served.studio, User(name="local", role="admin")
        (old, _), (young, _) = (add_picture(studio, "local") for _ in range(2))
        studio.trash(local, [old.id, young.id])
        later = datetime.now(UTC) - timedelta(days=2, seconds=1)
        with studio.store._write() as session:
            session.execute(update(PictureRow).where(PictureRow.id == old.id).values(trashed=later))
        studio.tidy()
        assert [picture.id for picture in studio.pictures(local, search=PictureSearch(trash=True))] == [young.id]
        assert not studio.files.path(old).exists()


def test_boards(served: ServedStudio, ben: Client) -> None:
    pictures = [add_picture(served.studio, "ben")[0].id for _ in range(3)]
    board = ben.add_board("Holidays")
    assert (board.count, board.cover) == (0, None)
    board = ben.change_board(board.id, add=[*pictures, pictures[0]])
    assert (board.count, board.cover) == (3, pictures[-1])
    assert ben.change_board(board.id, name="Sea", add=pictures[:1], remove=pictures[1:2]).name == "Sea"
    assert sorted(found(ben, board=board.id)) == sorted([pictures[0], pictures[2]])
    assert [on.id for on in ben.boards(picture=pictures[0])] == [board.id]
    assert ben.boards(picture=pictures[1]) == []
    ben.trash([pictures[2]])
    assert (ben.board(board.id).count, ben.board(board.id).cover) == (1, pictures[0])
    with pytest.raises(ResponseError, match="already") as refused:
        ben.add_board("Sea")
    assert refused.value.status == 409
    with pytest.raises(ResponseError, match="no picture"):
        ben.change_board(board.id, add=["unknown"], remove=pictures)
    assert ben.board(board.id).count == 1
    ben.remove_board(board.id)
    assert ben.picture(pictures[0]).trashed is None
    with pytest.raises(ResponseError, match="no board"):
        found(ben, board=board.id)


def test_what_another_user_has_is_not_there(served: ServedStudio, anna: Client, ben: Client) -> None:
    picture, _ = add_picture(served.studio, "anna", settings={"prompt": "a secret"})
    own, _ = add_picture(served.studio, "ben")
    board, bens = anna.add_board("hers"), ben.add_board("his")
    for attempt in (
        lambda: ben.thumbnail(picture.id),
        lambda: ben.change_picture(picture.id, favourite=True),
        lambda: ben.trash([own.id, picture.id]),
        lambda: ben.restore([picture.id]),
        lambda: ben.change_board(bens.id, add=[picture.id]),
        lambda: ben.change_board(board.id, name="mine"),
        lambda: ben.board(board.id),
        lambda: ben.remove_board(board.id),
        lambda: ben.boards(picture=picture.id),
        lambda: ben.archive(PictureSearch(board=board.id)),
        lambda: anna.change_board(board.id, add=[own.id]),  # a board is its user's alone
    ):
        with pytest.raises(ResponseError) as refused:
            attempt()
        assert refused.value.status == 404
    for of in ("anna", "*"):
        for attempt in (ben.pictures, ben.archive, ben.boards):
            with pytest.raises(ResponseError) as refused:
                attempt(of=of)
            assert refused.value.status == 403
    assert found(ben, ids=(picture.id,)) == found(ben, words="secret") == []
    assert "secret" not in {term.name for term in ben.terms("word")}
    assert found(anna, of="*", ids=(picture.id, own.id)) == [own.id, picture.id]


def test_many_pictures_are_downloaded_as_a_zip_file_in_parts(served: ServedStudio, ben: Client) -> None:
    board = ben.add_board("for the archive")
    made = dict[str, bytes]()
    for colour in ("red", "green", "blue"):
        record, content = add_picture(served.studio, "ben", colour)
        made[f"{record.created:%Y-%m-%d}/{record.id}.png"] = content
        ben.change_board(board.id, add=[record.id])
    removed, _ = add_picture(served.studio, "ben")
    ben.change_board(board.id, add=[removed.id])
    served.studio.files.remove(removed)  # somebody has removed the file
    with zipfile.ZipFile(io.BytesIO(ben.archive(PictureSearch(board=board.id)))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == made
    ids = tuple(Path(name).stem for name in made)
    named = PictureSearch(ids=ids + tuple(f"{number:032x}" for number in range(200 - len(ids))))
    with zipfile.ZipFile(io.BytesIO(ben.archive(named))) as archive:
        assert set(archive.namelist()) == made.keys()
    parts = [*served.studio.archive(BEN, PictureSearch(board=board.id))]
    assert len(parts) > 3


def test_a_picture_older_than_zip_files_is_downloaded_too(served: ServedStudio, ben: Client, tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(picture(16))
    os.utime(tmp_path / "old.png", (0, 0))
    studio = served.studio
    (imported,) = import_folder(studio.store, studio.files, tmp_path, "ben", studio.limits)
    assert imported.picture is not None
    with zipfile.ZipFile(io.BytesIO(ben.archive(PictureSearch(ids=(imported.picture.id,))))) as archive:
        assert archive.namelist() == [f"1970-01-01/{imported.picture.id}.png"]
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)


def test_a_thumbnail_is_made_once(served: ServedStudio, ben: Client) -> None:
    picture, _ = add_picture(served.studio, "ben", "red")
    first = ben.thumbnail(picture.id)
    image = Image.open(io.BytesIO(first))
    assert (image.format, image.size) == ("WEBP", (64, 64))
    served.studio.files.path(picture).unlink()
    assert ben.thumbnail(picture.id) == first
    served.studio.files.remove(picture)
    with pytest.raises(ResponseError, match="gone") as refused:
        ben.thumbnail(picture.id)
    assert refused.value.status == 404


def test_a_browser_keeps_thumbnails(served: ServedStudio, ben: Client) -> None:
    picture, _ = add_picture(served.studio, "ben")
    headers = {"Authorization": f"Bearer {served.key('ben')}"}
    url = f"{served.address}/api/v1/pictures/{picture.id}/thumbnail"
    answer = httpx.get(url, headers=headers)
    assert answer.headers["content-type"] == "image/webp"
    assert httpx.get(url, headers=headers | {"If-None-Match": answer.headers["etag"]}).status_code == 304


async def _asynchronously(served: ServedStudio, picture: str) -> None:
    async with AsyncClient(served.address, key=served.key("ben")) as client:
        assert (await client.change_picture(picture, favourite=True)).favourite
        board = await client.add_board("by asyncio")
        assert (await client.change_board(board.id, add=[picture])).count == 1
        assert [on.id for on in await client.boards(picture)] == [board.id]
        search = PictureSearch(board=board.id, favourite=True)
        assert [found.id for found in (await client.pictures(search=search)).pictures] == [picture]
        assert (await client.archive(search))[:2] == b"PK"
        assert await client.thumbnail(picture)
        await client.trash([picture])
        assert (await client.restore([picture]))[0].trashed is None
        assert await client.terms("tag") is not None
        await client.remove_board(board.id)


def test_the_asynchronous_client_does_the_same(served: ServedStudio) -> None:
    picture, _ = add_picture(served.studio, "ben")
    asyncio.run(_asynchronously(served, picture.id))
