"""How fast the gallery is with many pictures, over HTTP: pages, searches, thumbnails, and the memory of a download of all.

python -m scripts.gallery_speed --pictures 20000
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers import encoded, photograph  # noqa: E402
from picture_records import picture_of  # noqa: E402
from studio_server import ServedStudio, serving  # noqa: E402

from seesr.studio.files import FileStore  # noqa: E402
from seesr.studio.records import LOCAL  # noqa: E402
from seesr.studio.store import Store, sqlite_url  # noqa: E402
from seesr.studio.store.tables import BoardPictureRow, PictureRow, TermRow  # noqa: E402
from seesr.studio.store.terms import picture_terms  # noqa: E402

FILES = 5
"""Files that all pictures share, by links."""
BATCH = 500
WORDS = [f"word{number}" for number in range(2000)]


def main(
    pictures: Annotated[int, typer.Option(min=100, help="Rows of the gallery.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=3, help="Times that each request is made.")] = 20,
    folder: Annotated[Path | None, typer.Option(help="Where the gallery is made; by default a temporary folder.")] = None,
) -> None:
    """Make a gallery and print milliseconds (median, worst) of requests to it."""
    console = Console()
    with tempfile.TemporaryDirectory(dir=folder) as data:
        start = time.perf_counter()
        board = fill(Path(data), pictures)
        console.print(f"{pictures:,} pictures made in {time.perf_counter() - start:.0f} s")
        with serving(Path(data)) as served:
            measure(console, served, board, rounds)


def fill(data: Path, count: int) -> str:
    """Writes the rows and the files of a gallery; returns the id of a board with a tenth of them."""
    chance, files = random.Random(0), FileStore(data)
    contents = [encoded(photograph("chelsea.png", (x, 0, x + 160, 160)), "PNG") for x in range(0, FILES * 40, 40)]
    first = datetime.now(UTC) - timedelta(minutes=count)
    with Store(sqlite_url(data / "studio.db")) as store:
        board = store.add_board(LOCAL, "a tenth").id
        for begin in range(0, count, BATCH):
            rows, terms, on_board = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
            for number in range(begin, min(begin + BATCH, count)):
                prompt = ", ".join(["photo", *chance.choices(WORDS, k=15), *(["rare"] if number == count // 50 else [])])
                settings = {"prompt": prompt, "weights": f"model {number % 3}", "loras": {f"style {number % 40}": "0" * 12}}
                settings |= {"steps": 20, "sampler": "Euler a", "negative_prompt": "blurred, " * 20}
                tags, content = [f"tag {chance.randrange(300)}"], contents[number % FILES]
                created, favourite = first + timedelta(minutes=number), number % 200 == 0
                record = picture_of(LOCAL, content, created=created, settings=settings, tags=tags, favourite=favourite)
                _link(files, data, record, content, number)
                rows.append(record.model_dump() | {"number": number + 1})
                terms += [
                    {"kind": kind, "term": term, "picture": number + 1} for kind, term in picture_terms(settings, tags)
                ]
                on_board += [{"board": board, "picture": number + 1}] if number % 10 == 0 else []
            with store._write() as session:
                for table, values in ((PictureRow, rows), (TermRow, terms), (BoardPictureRow, on_board)):
                    session.execute(insert(table), values)
    return board


def _link(files: FileStore, data: Path, record: Any, content: bytes, number: int) -> None:
    """The file of a picture, a link to one of the few."""
    original = data / f"original-{number % FILES}.png"
    if not original.exists():
        original.write_bytes(content)
    path = files.path(record)
    path.parent.mkdir(exist_ok=True)
    os.link(original, path)


def measure(console: Console, served: ServedStudio, board: str, rounds: int) -> None:
    """Prints the tables."""
    process = psutil.Process()
    with httpx.Client(base_url=f"{served.address}/api/v1", timeout=600) as client:

        def ask(path: str, **query: Any) -> httpx.Response:
            return client.get(path, params=query).raise_for_status()

        page = ask("/pictures").json()["pictures"]
        middle = served.studio.store.pictures(LOCAL, count=1_000_000)
        deep = middle[len(middle) * 9 // 10].id
        del middle
        before = process.memory_info().rss
        requests: dict[str, Callable[[], httpx.Response]] = {
            "first page": lambda: ask("/pictures"),
            "page at nine tenths": lambda: ask("/pictures", before=deep),
            "a word in every prompt": lambda: ask("/pictures", words="photo"),
            "three words": lambda: ask("/pictures", words="photo word1 word2"),
            "a rare word": lambda: ask("/pictures", words="photo rare"),
            "a word that is nowhere": lambda: ask("/pictures", words="nowhere"),
            "a tag": lambda: ask("/pictures", tag="tag 1"),
            "LoRA and checkpoint": lambda: ask("/pictures", lora="style 1", checkpoint="model 2"),
            "favourites": lambda: ask("/pictures", favourite=True),
            "a board": lambda: ask("/pictures", board=board),
            "boards": lambda: ask("/boards"),
            "most frequent tags": lambda: ask("/terms", kind="tag"),
        }
        table = Table("request", "median ms", "worst ms", "pictures")
        for name, request in requests.items():
            seconds, answer = timed(request, rounds)
            found = answer.json()
            number = len(found["pictures"]) if isinstance(found, dict) else 0
            table.add_row(name, f"{1000 * statistics.median(seconds):.0f}", f"{1000 * max(seconds):.0f}", f"{number}")
        for name in ("thumbnails of a page, made", "the same again"):
            start = time.perf_counter()
            for picture in page:
                ask(f"/pictures/{picture['id']}/thumbnail")
            table.add_row(name, f"{1000 * (time.perf_counter() - start):.0f}", "", f"{len(page)}")
        console.print(table)
        console.print(f"memory after these: {(process.memory_info().rss - before) / 1e6:+.1f} MB")
        before, most, size = process.memory_info().rss, 0, 0
        with client.stream("GET", "/archive") as response:
            for part in response.iter_bytes(1 << 20):
                size, most = size + len(part), max(most, process.memory_info().rss - before)
        console.print(f"all as ZIP: {size / 1e6:.0f} MB; memory of it (server and client): {most / 1e6:+.1f} MB at most")


def timed(request: Callable[[], httpx.Response], rounds: int) -> tuple[list[float], httpx.Response]:
    """Seconds of each time, and the last answer."""
    seconds, answers = list[float](), list[httpx.Response]()
    for _ in range(rounds):
        start = time.perf_counter()
        answers[:] = [request()]
        seconds.append(time.perf_counter() - start)
    return seconds, answers[0]


if __name__ == "__main__":
    typer.run(main)
