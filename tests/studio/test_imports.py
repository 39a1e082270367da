"""`seesr studio import`: a folder of other programs' pictures and of one's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner, Result

from seesr.cli.console import EXIT_FAILED
from seesr.cli.studio import app
from seesr.jobs import content_hash
from seesr.studio.files import FileStore
from seesr.studio.records import PictureRecord, PictureSearch
from seesr.studio.store import Store, sqlite_url

INFOTEXT = """a "lighthouse", by the sea <lora:ink wash:0.7>
Negative prompt: fog
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64, Model hash: 6ce0161689, Model: v1-5-pruned, \
Lora hashes: "ink wash: 0123456789ab, other: ba9876543210\""""


def picture(path: Path, colour: str, infotext: str | None = None, settings: object = None) -> Path:
    """A PNG with texts."""
    texts = PngInfo()
    if infotext is not None:
        texts.add_itxt("parameters", infotext)
    if settings is not None:
        texts.add_text("seesr", json.dumps(settings))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), colour).save(path, pnginfo=texts)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures, each a day younger than the one before, and what is none."""
    folder = tmp_path / "outputs of A1111"
    exif, comment = Image.Exif(), INFOTEXT.replace("lighthouse", "harbour").encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + comment
    paths = [
        picture(folder / "txt2img-images" / "00001-5.png", "red", INFOTEXT),
        folder / "txt2img-images" / "00002-6.JPG",
        picture(
            folder / "own.png", "blue", "words\nSteps: 1", {"version": "1", "weights": "tiny", "seed": 3, "prompt": "own"}
        ),
        picture(folder / "plain.png", "green"),
        picture(folder / "the same again.png", "green"),
    ]
    Image.new("RGB", (64, 48), "white").save(paths[1], exif=exif)
    for day, path in enumerate(paths):
        os.utime(path, (86400 * (day + 1), 86400 * (day + 1)))
    (folder / "notes.txt").write_text("no picture")
    picture(folder / ".cache" / "hidden.png", "black")
    return folder


def run(data: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, arguments), "--data", str(data)], catch_exceptions=True)


def pictures(data: Path, user: str | None = None, **search: object) -> list[PictureRecord]:
    with Store(sqlite_url(data / "studio.db")) as store:
        return store.pictures(user, search=PictureSearch.model_validate(search))


def test_pictures_come_with_their_settings_date_and_bytes(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    result = run(data, folder, "--board", "old ones")
    assert result.exit_code == 0, result.output
    plain, own, harbour, lighthouse = pictures(data)
    assert [found.created.timestamp() / 86400 for found in (lighthouse, harbour, own, plain)] == [1, 2, 3, 4]
    assert (lighthouse.user, lighthouse.job, lighthouse.width, lighthouse.height) == ("local", None, 64, 48)
    assert lighthouse.settings["infotext"] == INFOTEXT
    assert (lighthouse.settings["seed"], lighthouse.settings["negative_prompt"]) == (5, "fog")
    assert lighthouse.settings["loras"] == {"ink wash": "0123456789ab", "other": "ba9876543210"}
    assert (harbour.media_type, harbour.settings["weights"]) == ("image/jpeg", "v1-5-pruned")
    assert (own.settings["prompt"], own.settings["weights"]) == ("own", "tiny")
    assert plain.settings == {}
    files = FileStore(data)
    for found, name in ((lighthouse, "txt2img-images/00001-5.png"), (harbour, "txt2img-images/00002-6.JPG")):
        content = files.path(found).read_bytes()
        assert content == (folder / name).read_bytes()
        assert content_hash(content) == found.digest
    assert pictures(data, words="lighthouse SEA", lora="Ink Wash", checkpoint="V1-5-pruned") == [lighthouse]
    assert pictures(data, words="lora") == []
    with Store(sqlite_url(data / "studio.db")) as store:
        (board,) = store.boards("local")
        assert (board.name, board.count, board.cover) == ("old ones", 4, plain.id)
    assert str(folder) not in json.dumps([found.model_dump(mode="json") for found in pictures(data)])


def test_an_import_may_be_repeated(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run(data, folder)
    before = pictures(data)
    picture(folder / "new.png", "yellow")
    result = run(data, folder)
    assert f"{data}: 1 pictures were taken, 5 were there already" in result.output
    assert [found for found in pictures(data) if found in before] == before
    assert len(pictures(data)) == 5


def test_what_cannot_be_taken_is_named_and_the_rest_is_taken(folder: Path, tmp_path: Path) -> None:
    (folder / "cut.png").write_bytes((folder / "plain.png").read_bytes()[:80])
    (folder / "page.png").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>")
    (folder / "empty.webp").touch()
    Image.new("RGB", (64, 48)).save(folder / "old.tif.jpg", "TIFF")
    result = run(tmp_path / "data", folder)
    assert result.exit_code == EXIT_FAILED
    assert all(name in result.output for name in ("cut.png", "page.png", "empty.webp"))
    assert "5 pictures were taken" in result.output
    assert [found.media_type for found in pictures(tmp_path / "data")].count("image/tiff") == 1  # by content, not by name


def test_they_are_given_to_a_user(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with Store(sqlite_url(data / "studio.db")) as store:
        store.add_user("ada", None)
    assert "--user" in str(run(data, folder).exception)
    assert "'bo'" in str(run(data, folder, "--user", "bo").exception)
    assert run(data, folder, "--user", "ada").exit_code == 0
    assert len(pictures(data, "ada")) == 4
