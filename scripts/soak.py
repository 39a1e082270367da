"""A long run against one real server: memory over many predictions, temporary files, and clients that compete for it.

./scripts/soak.sh        this, and the fuzz tests ten times as long
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import requests
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from cog_server import Server, data_url, picture_of, serving  # noqa: E402

SIZES = ((48, 40), (64, 64), (33, 90), (128, 96), (200, 150))
SCALES = (2, 1.5, 4, 1)
SETTLED = 50
"""Predictions after which memory should no longer grow."""
MOST_GROWTH = 20_000
"""Bytes a prediction."""
RETRY_SECONDS = 0.05


def main(
    predictions: Annotated[int, typer.Option(help="One after the other, of mixed sizes.", min=SETTLED + 10)] = 300,
    requests_: Annotated[int, typer.Option("--requests", help="Of all clients together.")] = 200,
    clients: Annotated[int, typer.Option(help="At the same time.")] = 8,
) -> None:
    """Prints a table; exit code 1 when something is not as it should be."""
    photo = Image.open(ROOT / "tests" / "images" / "chelsea.png").convert("RGB")
    with serving(SEESR_WEIGHTS="tiny") as server:
        server.wait_for("READY")
        worker = server.worker()
        rows = soak(server, photo, predictions) + load(server, photo, requests_, clients)
        rows.append(("the worker is the same process", str(server.worker() == worker), server.worker() == worker))
    table = Table("what", "seen", "right")
    for name, seen, right in rows:
        table.add_row(name, seen, "yes" if right else "NO")
    Console(width=110).print(table)
    raise typer.Exit(not all(right for *_, right in rows))


def soak(server: Server, photo: Image.Image, count: int) -> list[tuple[str, str, bool]]:
    """`count` predictions one after the other: the same request must give the same answer, and memory must stay."""
    processes = [psutil.Process(number) for number in (server.worker(), server.process.pid)]
    resident, answers, wrong = [], dict[Any, str](), 0
    for number in range(count):
        size, scale = SIZES[number % len(SIZES)], SCALES[number % len(SCALES)]
        left = number % len(SIZES) * 20
        image = data_url(photo.crop((left, 60, left + size[0], 60 + size[1])))
        record = server.predict(image=image, scale=scale, num_inference_steps=1, seed=number % 2)
        right = record["status"] == "succeeded"
        if right:
            same = answers.setdefault((size, scale, number % 2), record["output"]) == record["output"]
            right = same and picture_of(record).size == tuple(round(side * scale) for side in size)
        wrong += not right
        resident.append(sum(process.memory_info().rss for process in processes))
    slope = float(np.polyfit(np.arange(SETTLED, count), resident[SETTLED:], 1)[0])
    first, last = (f"{value / 1e6:.1f} MB" for value in (resident[SETTLED], resident[-1]))
    files = [path.name for path in server.files()]
    return [
        (f"{count} predictions of mixed sizes: wrong answers", str(wrong), wrong == 0),
        (f"resident memory of both processes at {SETTLED} and {count}", f"{first}, {last}", True),
        ("growth a prediction", f"{slope / 1000:.1f} KB", slope < MOST_GROWTH),
        ("temporary files at the end", ", ".join(files), files == ["upscaled.png"]),
    ]


def load(server: Server, photo: Image.Image, count: int, clients: int) -> list[tuple[str, str, bool]]:
    """`count` requests of clients that try again when the server is busy: each gets its own right answer."""
    pictures = [photo.crop((20 * n, 40, 20 * n + 48, 80)) for n in range(clients)]
    alone = [server.predict(**_inputs(picture, client)) for client, picture in enumerate(pictures)]
    busy = Counter[int]()

    def ask(number: int) -> bool:
        client = number % clients
        request = {"input": _inputs(pictures[client], client)}
        while (answer := requests.post(f"{server.address}/predictions", json=request, timeout=300)).status_code == 409:
            busy[client] += 1
            time.sleep(RETRY_SECONDS)
        return answer.status_code == 200 and answer.json().get("output") == alone[client].get("output", "none")

    with ThreadPoolExecutor(clients) as pool:
        right = sum(pool.map(ask, range(count)))
    return [
        (f"{count} requests of {clients} clients: right answers", str(right), right == count),
        ("times a client was told to come again (409)", str(busy.total()), True),
    ]


def _inputs(picture: Image.Image, seed: int) -> dict[str, Any]:
    return {"image": data_url(picture), "scale": 2, "num_inference_steps": 1, "seed": seed}


if __name__ == "__main__":
    typer.run(main)
