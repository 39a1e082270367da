"""Finished pictures at a URL: S3 by moto's server with injected errors, and a storage in which half a file is seen."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from job_requests import generation
from picture_records import picture_of
from studio_server import ServedStudio, serving

from seesr.client import Client, ResponseError
from seesr.jobs import content_hash
from seesr.studio import files as studio_files
from seesr.studio.errors import StorageError, StudioError
from seesr.studio.files import FileStore

BUCKET = "pictures"


class Faults:
    """A WSGI app before another one: breaks requests for as long as `is_broken` says so of method and path."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app, self.is_broken = app, lambda method, path: False
        self.requests = list[tuple[str, str]]()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append(request)
        if self.is_broken(*request):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Service Unavailable", [("Content-Type", "application/xml")])
            return [b"<Error><Code>ServiceUnavailable</Code></Error>"]
        return self.app(environ, start_response)


@pytest.fixture(scope="module")
def faults() -> Iterator[tuple[Faults, str]]:
    """The app before moto's, and its address."""
    pytest.importorskip("s3fs", reason="s3fs is in the extra studio")
    server = pytest.importorskip("moto.server", reason="moto[server] is in the extra test")
    serving = pytest.importorskip("werkzeug.serving")
    app = Faults(server.DomainDispatcherApplication(server.create_backend_app))
    listener = serving.make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield app, f"http://127.0.0.1:{listener.server_port}"
    listener.shutdown()


@pytest.fixture
def s3(faults: tuple[Faults, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """An empty bucket."""
    import s3fs

    app, address = faults
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "2",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    if files.exists(BUCKET):
        files.rm(BUCKET, recursive=True)
    files.mkdir(BUCKET)
    yield app
    app.is_broken = lambda method, path: False


def objects() -> dict[str, bytes]:
    """What is in the bucket, by name."""
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    return {name.removeprefix(f"{BUCKET}/"): files.cat_file(name) for name in files.find(BUCKET)}


@pytest.fixture
def served(s3: Faults, tmp_path: Path) -> Iterator[ServedStudio]:
    with serving(tmp_path / "data", outputs=f"s3://{BUCKET}/studio") as served:
        yield served


@pytest.fixture
def client(served: ServedStudio) -> Iterator[Client]:
    with Client(served.address) as client:
        yield client


def test_pictures_are_written_listed_served_and_removed(served: ServedStudio, client: Client, s3: Faults) -> None:
    job = client.wait(client.submit(generation("grey", batch_count=2)).id, timeout=60)
    assert job.state == "done", job.error
    names = {picture.id: f"studio/{picture.created:%Y-%m-%d}/{picture.id}.png" for picture in job.pictures}
    assert {name: content_hash(content) for name, content in objects().items()} == {
        names[picture.id]: picture.digest for picture in job.pictures
    }
    assert list((served.studio.files.root / "outputs").glob("*")) == []
    first, second = (picture.id for picture in job.pictures)
    assert content_hash(client.picture_file(first)) == job.pictures[0].digest
    s3.requests.clear()
    assert client.picture_file(first)  # from what was fetched before
    assert s3.requests == []
    assert client.thumbnail(second)
    assert len(client.archive()) > 2 * job.pictures[0].size
    client.trash([first])
    assert client.empty_trash() == 1
    assert [*objects()] == [names[second]]
    assert list(served.studio.files.root.glob(f"*/*/{first}.*")) == []


def test_a_fault_that_passes_is_not_seen(client: Client, s3: Faults) -> None:
    faults = iter([True])
    s3.is_broken = lambda method, path: method == "PUT" and next(faults, False)
    job = client.wait(client.submit(generation("grey")).id, timeout=60)
    assert job.state == "done", job.error
    assert len(objects()) == 1


def test_a_picture_is_whole_or_absent_while_the_storage_fails(served: ServedStudio, client: Client, s3: Faults) -> None:
    good = client.wait(client.submit(generation("grey")).id, timeout=60).pictures[0]
    s3.is_broken = lambda method, path: True
    failed = client.wait(client.submit(generation("grey")).id, timeout=120)
    assert (failed.state, failed.pictures) == ("failed", [])
    assert "storage of the outputs failed" in (failed.error or "")
    assert "127.0.0.1" not in (failed.error or "")
    with pytest.raises(ResponseError, match="storage") as refused:
        client.picture_file(good.id)
    assert refused.value.status == 503
    with pytest.raises(ResponseError, match="storage"):
        client.thumbnail(good.id)
    assert [picture.id for picture in client.pictures().pictures] == [good.id]
    s3.is_broken = lambda method, path: False
    assert content_hash(client.picture_file(good.id)) == good.digest
    assert len(objects()) == 1
    assert client.wait(client.retry(failed.id).id, timeout=60).state == "done"


class SlowFiles(MemoryFileSystem):
    """A storage in which a file appears when its writing begins, and that breaks off where `breaks` says so."""

    protocol = "slowfiles"
    store: dict[str, Any] = {}  # noqa: RUF012 as fsspec has it
    pseudo_dirs = [""]  # noqa: RUF012
    breaks = False

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **arguments: Any) -> None:
        super().pipe_file(path, value[: len(value) // 2], **arguments)
        if type(self).breaks:
            raise ConnectionResetError("the line is down")
        super().pipe_file(path, value, **arguments)


def test_elsewhere_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("slowfiles", SlowFiles, clobber=True)
    files = FileStore(tmp_path, outputs="slowfiles://folder")
    content = b"a picture" * 1000
    record = picture_of("ada", content)
    monkeypatch.setattr(SlowFiles, "breaks", True)
    with pytest.raises(StorageError, match="ConnectionResetError"):
        files.put_output(record.id, record.created, record.media_type, content)
    assert not files.path(record).exists()
    monkeypatch.setattr(SlowFiles, "breaks", False)
    files.put_output(record.id, record.created, record.media_type, content)
    assert files.path(record).read_bytes() == content
    files.remove(record)
    files.remove(record)  # it may be gone already
    assert not files.path(record).exists()


def test_fetched_files_do_not_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio_files, "FETCHED_BYTES", 2500)
    monkeypatch.setattr(studio_files, "RECENT_SECONDS", 0)
    files = FileStore(tmp_path, outputs="memory://bounded")
    records = [picture_of("ada", bytes(1000)) for _ in range(6)]
    for record in records:
        files.put_output(record.id, record.created, record.media_type, bytes(1000))
        assert files.path(record).stat().st_size == 1000
    kept = {path.stem for path in (tmp_path / "fetched").glob("*/*")}
    assert len(kept) == 2
    assert records[-1].id in kept


def test_a_folder_of_somebody_elses_is_not_tidied(tmp_path: Path) -> None:
    other = tmp_path / "my pictures" / "2020" / "cat.png"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"a cat")
    os.utime(other, (0, 0))
    files = FileStore(tmp_path / "data", outputs=str(tmp_path / "my pictures"))
    record = picture_of("ada")
    files.put_output(record.id, record.created, record.media_type, b"a picture")
    assert files.collect_garbage([], []) == 0
    assert other.exists()
    assert files.path(record).read_bytes() == b"a picture"


def test_a_url_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="outputs at nothing://"):
        FileStore(tmp_path, outputs="nothing://bucket")
