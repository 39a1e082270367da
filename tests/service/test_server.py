"""The container's server over real HTTP: its contract, what clients do wrong, and what it does when things go wrong."""

from __future__ import annotations

import base64
import http.server
import io
import json
import re
import signal
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pillow_heif
import psutil
import pytest
import requests
import schemathesis
from cog_server import Server, content_of, data_url, picture_of, serving
from helpers import PHOTOS, ROOT, cases, encoded, photograph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from seesr import Upscaler

pytestmark = pytest.mark.server

QUICK: dict[str, Any] = {"scale": 2, "num_inference_steps": 1, "seed": 4}
LONG: dict[str, Any] = {"scale": 6, "num_inference_steps": 4, "kds": True, "kds_particles": 16}
"""Seven seconds on a fast machine, half a minute on a slow one: time to disturb it."""
STAGES = ("clean", "resize", "tags", "prompt", "encode", "denoise", "vae_decode", "colour", "finish")
FINISHED = ("succeeded", "failed", "canceled")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return photograph("chelsea.png", (150, 80, 198, 120))


@pytest.fixture(scope="module")
def image(photo: Image.Image) -> str:
    return data_url(photo)


@pytest.fixture
def unharmed(server: Server, image: str) -> Iterator[None]:
    """What happens in a test leaves the server ready, with the same process, the same answers, and no stray file."""
    before = server.predict(image=image, **QUICK)
    server.wait_for("READY", seconds=10)
    yield
    server.wait_for("READY", seconds=60)
    after = server.predict(image=image, **QUICK)
    assert after["output"] == before["output"]
    assert server.worker() == server.first_worker
    assert [path.name for path in server.files()] == ["upscaled.png"], "the last result, until the next prediction"


class TestContract:
    def test_a_prediction_is_what_the_library_computes(self, server: Server, photo: Image.Image, image: str) -> None:
        record = server.predict(image=image, **QUICK)
        here = Upscaler.load().upscale(photo, scale=2, steps=1, seed=4)
        assert picture_of(record).tobytes() == here.image.tobytes()
        assert "step 1 of 1" in record["logs"]
        for word in ("seed: 4", "tags: ", "memory plan: whole", "seconds: "):
            assert word in record["logs"]
        metrics = record["metrics"]
        assert (metrics["output_width"], metrics["output_height"], metrics["seed"]) == (96, 80, 4)
        assert metrics["seconds"].keys() >= set(STAGES)
        assert metrics["peak_memory_bytes"] > 0

    def test_all_frames_of_an_animation(self, server: Server, photo: Image.Image) -> None:
        frames = [photo, photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
        content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=[70, 90], loop=0)
        image = "data:image/gif;base64," + base64.b64encode(content).decode()
        record = server.predict(image=image, frames="all", output_format="webp", **QUICK)
        assert "frame 2 of 2" in record["logs"]
        assert record["metrics"]["frames"] == 2
        assert record["output"].startswith("data:image/webp;")
        made = Image.open(io.BytesIO(content_of(record)))
        assert (made.n_frames, made.info["loop"], made.size) == (2, 0, (96, 80))
        first = server.predict(image=image, **QUICK)
        assert "note: the input frames=all takes all of them" in first["logs"]
        refused = server.predict(image=image, frames="all", output_format="jpg", **QUICK)
        assert "the result: JPEG holds one picture, and the input has 2 frames" in refused["error"]

    def test_endpoints(self, server: Server) -> None:
        assert server.get("/").json()["predictions_url"] == "/predictions"
        assert server.health()["status"] == "READY"
        assert "trying them on a first picture" in server.health()["setup"]["logs"]
        assert server.get("/openapi.json").json() == json.loads((ROOT / ".cog" / "openapi_schema.json").read_text())
        assert server.get("/predictions").status_code == 405
        assert server.get("/nothing").status_code == 404
        assert server.post("/predictions/unknown/cancel").status_code == 404

    @pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tiff", "bmp", "avif"])
    def test_formats(self, server: Server, image: str, kind: str) -> None:
        made = picture_of(server.predict(image=image, output_format=kind, output_quality=60, **QUICK))
        assert made.format == {"jpg": "JPEG"}.get(kind, kind.upper())
        assert made.size == (96, 80)

    def test_options_change_the_picture(self, server: Server, image: str) -> None:
        contents = [
            content_of(server.predict(image=image, **(QUICK | change)))
            for change in ({}, {"seed": 5}, {"sharpen": 1.0}, {"kds": True, "kds_particles": 3}, {"preset": "quality"})
        ]
        assert len(set(contents[:-1])) == len(contents) - 1
        assert contents[-1] == contents[0], "what is given beside a preset wins"
        assert picture_of(server.predict(image=image, preset="speed", scale=1.5)).size == (72, 60)

    def test_without_a_seed_each_is_another(self, server: Server, image: str) -> None:
        seeds = {server.predict(image=image, scale=2, preset="speed")["metrics"]["seed"] for _ in range(2)}
        assert len(seeds) == 2

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"scale": 99}, "99 is greater than the maximum of 8"),
            ({"scale": 0.5}, "0.5 is less than the minimum of 1"),
            ({"scale": "four"}, '"four" is not of type "number"'),
            ({"num_inference_steps": 0}, "less than the minimum of 1"),
            ({"num_inference_steps": 1.5}, 'is not of type "integer"'),
            ({"color_fix": "sepia"}, 'is not one of ["wavelet","lab","adain","none"]'),
            ({"preset": "best"}, "is not one of"),
            ({"seed": -1}, "less than the minimum of 0"),
            ({"seed": 2**32}, "greater than the maximum"),
            ({"prompt": "x" * 1001}, "is longer than 1000 characters"),
            ({"prompt": 5}, 'is not of type "string"'),
            ({"output_format": "tga"}, "is not one of"),
            ({"kds_particles": 17}, "greater than the maximum of 16"),
            ({"image": 5}, 'is not of type "string"'),
        ],
    )
    def test_an_input_that_cannot_be_is_422(self, server: Server, image: str, wrong: dict, words: str) -> None:
        answer = server.post("/predictions", {"input": {"image": image} | wrong})
        assert answer.status_code == 422
        (detail,) = answer.json()["detail"]
        assert detail["loc"] == ["body", "input", *wrong]
        assert words in detail["msg"]

    def test_requests_that_are_none(self, server: Server) -> None:
        missing = server.post("/predictions", {"input": {}})
        assert missing.status_code == 422
        assert missing.json()["detail"][0]["msg"] == "Field required"
        headers = {"Content-Type": "application/json"}
        assert server.session.post(server.address + "/predictions", data="{", headers=headers).status_code == 400
        assert server.session.post(server.address + "/predictions", data="x").status_code == 422
        assert server.post("/predictions", []).status_code == 422

    def test_busy_async_idempotent_and_cancel(self, server: Server, image: str, unharmed: None) -> None:
        body = {"input": {"image": image, **LONG}}
        begun = server.put("/predictions/one", body, headers={"Prefer": "respond-async"})
        assert (begun.status_code, begun.json()["status"]) in {(202, "starting"), (202, "processing")}
        server.wait_for("BUSY", seconds=10)
        assert server.post("/predictions", body).status_code == 409
        again = server.put("/predictions/one", body, headers={"Prefer": "respond-async"})
        assert (again.status_code, again.json()["id"]) == (202, "one")
        assert server.post("/predictions/two/cancel").status_code == 404
        time.sleep(1)
        started = time.monotonic()
        assert server.post("/predictions/one/cancel").status_code == 200
        server.wait_for("READY", seconds=30)
        assert time.monotonic() - started < 10, "all its steps take a minute"
        assert server.files() == []
        assert server.post("/predictions/one/cancel").status_code == 404, "it is over"

    def test_a_waiting_client_is_told_of_the_cancel(self, server: Server, image: str, unharmed: None) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(requests.put, server.address + "/predictions/w", json={"input": {"image": image, **LONG}})
            server.wait_for("BUSY", seconds=10)
            time.sleep(0.5)
            server.post("/predictions/w/cancel")
            assert waiting.result(60).json()["status"] == "canceled"


@dataclass
class Listener:
    """A client's own web server: takes webhooks, and gives files."""

    folder: Path
    answer: int = 200
    delay: float = 0.0
    calls: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""

    def wait_for(self, seconds: float = 60) -> dict[str, Any]:
        """The call that says how it ended; Cog sends each by itself, so another may come in after it."""
        end = time.monotonic() + seconds
        while not (finished := [call for call in self.calls if call["status"] in FINISHED]):
            assert time.monotonic() < end, [call["status"] for call in self.calls]
            time.sleep(0.05)
        return finished[0]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listening = Listener(tmp_path)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(listening.delay)
            listening.calls.append(body)
            self.send_response(listening.answer)
            self.end_headers()

        def do_GET(self) -> None:
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to"))
                self.end_headers()
                return
            if self.path.startswith("/slow/"):
                time.sleep(listening.delay)
                self.path = self.path.removeprefix("/slow")
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as answering:
        listening.address = f"http://127.0.0.1:{answering.server_port}"
        thread = threading.Thread(target=answering.serve_forever, daemon=True)
        thread.start()
        yield listening
        answering.shutdown()


class TestWebhooks:
    def _begin(self, server: Server, image: str, address: str, events: list[str] | None = None) -> None:
        body: dict[str, Any] = {"input": {"image": image, **QUICK}, "webhook": address}
        if events:
            body["webhook_events_filter"] = events
        assert server.post("/predictions", body, headers={"Prefer": "respond-async"}).status_code == 202

    def test_start_logs_completed(self, server: Server, image: str, listener: Listener) -> None:
        self._begin(server, image, listener.address)
        last = listener.wait_for()
        assert picture_of(last).size == (96, 80)
        assert any(call["status"] in ("starting", "processing") for call in listener.calls)
        assert "seed: 4" in last["logs"]

    def test_logs_come_while_it_works(self, server: Server, image: str, listener: Listener) -> None:
        inputs = {"image": image, "num_inference_steps": 4, "kds": True, "kds_particles": 8}
        body = {"input": inputs, "webhook": listener.address, "webhook_events_filter": ["logs", "completed"]}
        assert server.post("/predictions", body, headers={"Prefer": "respond-async"}).status_code == 202
        listener.wait_for()
        while_working = [call["logs"] for call in listener.calls if call["status"] == "processing"]
        assert any("step 1 of 4" in logs and "step 4 of 4" not in logs for logs in while_working)

    def test_only_what_is_asked_for(self, server: Server, image: str, listener: Listener) -> None:
        self._begin(server, image, listener.address, ["completed"])
        listener.wait_for()
        assert len(listener.calls) == 1

    def test_a_failure_is_told_too(self, server: Server, listener: Listener) -> None:
        self._begin(server, data_url(b"no picture"), listener.address, ["completed"])
        last = listener.wait_for()
        assert last["status"] == "failed"
        assert "image is not a picture" in last["error"]

    @pytest.mark.parametrize("trouble", ["down", "slow", "500"])
    def test_a_bad_listener_harms_nobody(
        self, server: Server, image: str, listener: Listener, unharmed: None, trouble: str
    ) -> None:
        listener.answer, listener.delay = (500 if trouble == "500" else 200), (3.0 if trouble == "slow" else 0.0)
        self._begin(server, image, "http://127.0.0.1:9/" if trouble == "down" else listener.address)
        if trouble != "down":
            assert listener.wait_for()["status"] == "succeeded"


def _bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it is this large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


class TestPictures:
    @pytest.mark.parametrize(
        ("content", "words"),
        ids=["empty", "text", "bomb", "small bomb", "cut", "long"],
        argvalues=[
            (b"", "image is empty (0 bytes)"),
            (b"no picture", "image is not a picture in a known format"),
            (_bomb(30000, 30000), "image is 30000x30000, 900,000,000 pixels; at most 1,000,000 are allowed"),
            (_bomb(64, 64), "image is damaged or cut short"),
            ((PHOTOS / "chelsea.png").read_bytes()[:5000], "image is damaged or cut short"),
            (bytes(3_000_001), "image has 3,000,001 bytes; at most 3,000,000 are allowed"),
        ],
    )
    def test_one_sentence_for_each_bad_picture(self, server: Server, unharmed: None, content: bytes, words: str) -> None:
        record = server.predict(image=data_url(content), **QUICK)
        assert record["status"] == "failed"
        assert words in record["error"]
        assert "output" not in record
        for secret in ("Traceback", str(server.temporary), "/tmp"):
            assert secret not in record["error"] + record["logs"]

    def test_cmyk_is_a_picture_like_any(self, server: Server, photo: Image.Image) -> None:
        record = server.predict(image=data_url(photo.convert("CMYK"), format="JPEG"), **QUICK)
        assert picture_of(record).mode == "RGB"

    def test_a_result_larger_than_the_operator_allows(self, server: Server, image: str) -> None:
        record = server.predict(image=image, scale=8)
        assert "384x320; at most 300 pixels a side are allowed. For this picture ask for a scale of 6.25" in record["error"]

    def test_options_that_do_not_go_together(self, server: Server, image: str) -> None:
        record = server.predict(image=image, tile=64, tile_overlap=60)
        assert "tile_overlap is 60; it may be at most half of the tile (32)" in record["error"]

    def test_the_place_is_dropped_unless_it_shall_be_kept(self, server: Server, photo: Image.Image) -> None:
        exif = Image.Exif()
        exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (50.0, 1.0, 2.0)}
        exif[ExifTags.Base.Artist] = "Somebody"
        located = data_url(photo, format="JPEG", exif=exif)
        dropped, kept = (
            picture_of(server.predict(image=located, output_format="jpg", keep_metadata=keep, **QUICK)).getexif()
            for keep in (False, True)
        )
        assert not dropped.get_ifd(ExifTags.IFD.GPSInfo)
        assert ExifTags.Base.Artist not in dropped
        assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


class TestSecurity:
    def test_files_of_the_server_are_refused(self, server: Server, photo: Image.Image, tmp_path: Path) -> None:
        copy = tmp_path / "private.png"
        photo.save(copy)
        beside = server.temporary / "beside.png"
        photo.save(beside)
        link = server.temporary / "link.png"
        link.symlink_to(copy)
        for path in (
            "/etc/hostname",
            copy,
            beside,
            link,
            f"file://{copy}",
            "predict.py",
            "/proc/self/environ",
            "",
            "x" * 5000,
            "a\0b",
        ):
            record = server.predict(image=str(path), **QUICK)
            assert record["status"] == "failed"
            assert "image is neither a data URL nor an http(s) address" in record["error"]
        beside.unlink()
        link.unlink()

    def test_a_guessed_path_in_the_download_folder_is_gone(self, server: Server, image: str) -> None:
        server.predict(image=image, **QUICK)
        (result,) = server.files()
        record = server.predict(image=str(result), **QUICK)
        assert record["status"] == "failed"
        assert "image is neither" in record["error"]

    def test_addresses_are_fetched(self, server: Server, photo: Image.Image, listener: Listener, unharmed: None) -> None:
        photo.save(listener.folder / "photo.png")
        (listener.folder / "text.png").write_text("hello")
        expected = server.predict(image=data_url(photo), **QUICK)["output"]
        for path in ("/photo.png", "/to/photo.png", "/photo.png?token=a%20b"):
            assert server.predict(image=listener.address + path, **QUICK)["output"] == expected
        assert "image is not a picture" in server.predict(image=listener.address + "/text.png")["error"]
        assert "404" in server.predict(image=listener.address + "/nothing.png")["error"]
        assert server.predict(image="http://127.0.0.1:9/x.png")["status"] == "failed"


class TestDisturbances:
    def test_a_cancel_while_the_input_is_being_fetched(
        self, server: Server, photo: Image.Image, listener: Listener, unharmed: None
    ) -> None:
        # Cog 0.23.1 waits for the end of the fetch, then cancels; meanwhile it is busy.
        photo.save(listener.folder / "photo.png")
        listener.delay = 2.0
        body = {"input": {"image": listener.address + "/slow/photo.png", **QUICK}}
        assert server.put("/predictions/fetching", body, headers={"Prefer": "respond-async"}).status_code == 202
        time.sleep(0.5)
        assert server.post("/predictions/fetching/cancel").status_code == 200
        assert server.health()["status"] == "BUSY"
        server.wait_for("READY", seconds=20)

    def test_a_client_that_goes_away(self, server: Server, image: str, unharmed: None) -> None:
        body = json.dumps({"input": {"image": image, **(LONG | {"scale": 2})}}).encode()
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /predictions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            server.wait_for("BUSY", seconds=10)
            time.sleep(0.5)

    def test_a_setup_that_fails_says_why(self, image: str) -> None:
        with serving(SEESR_WEIGHTS="full") as broken:
            broken.wait_for("SETUP_FAILED")
            logs = broken.health()["setup"]["logs"]
            assert "SEESR_ACCEPT_LICENSE=1" in logs
            assert "the full model is not complete" in logs
            assert "Traceback" not in logs
            assert broken.post("/predictions", {"input": {"image": image}}).status_code == 503
            assert broken.post("/shutdown").status_code == 200
            assert broken.process.wait(60) == 0


def _make_busy(server: Server, **inputs: object) -> int:
    """Begins a prediction, and returns the process number of the worker that is at it."""
    end = time.monotonic() + 10
    # 409: Cog may answer a prediction before the next can begin.
    while (begun := server.post("/predictions", {"input": inputs}, headers={"Prefer": "respond-async"})).status_code == 409:
        assert time.monotonic() < end, begun.text
        time.sleep(0.2)
    assert begun.status_code == 202, begun.text
    server.wait_for("BUSY", seconds=10)
    return server.worker()


def _is_gone(process: int) -> bool:
    """Whether it has ended, within the seconds that ending may take."""
    try:
        psutil.Process(process).wait(10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that says what fails."""
    return tmp_path_factory.mktemp("faults") / "plan"


@pytest.fixture(scope="module")
def faulty(plan: Path) -> Iterator[Server]:
    predictor = "tests/service/faulty_predictor.py:Predictor"
    # More seconds than it takes to see that it is busy.
    with serving(predictor, largest_file=300_000, SEESR_TEST_FAULT=str(plan), SEESR_SECONDS="6") as running:
        running.wait_for("READY")
        yield running


class TestFaults:
    """Memory that runs out, defects, a full disk and a signal, one after the other: the server is the same after each."""

    @pytest.fixture(autouse=True)
    def _unharmed(self, faulty: Server, plan: Path, image: str) -> Iterator[None]:
        before = faulty.predict(image=image, **QUICK)["output"]
        yield
        plan.unlink(missing_ok=True)
        if faulty.process.poll() is None:
            assert faulty.predict(image=image, **QUICK)["output"] == before

    @pytest.mark.parametrize("stage", ["clean", "denoise", "finish"])  # all of them: tests/planning/test_fallback.py
    def test_memory_that_runs_out_in_a_stage(self, faulty: Server, plan: Path, image: str, stage: str) -> None:
        plan.write_text(f"{stage} 1")
        once = faulty.predict(image=image, **QUICK)
        assert picture_of(once).size == (96, 80)
        assert once["metrics"]["attempts"] == 1
        assert f"memory did not suffice for whole: injected in {stage}" in once["logs"]
        plan.write_text(f"{stage} 99")
        record = faulty.predict(image=image, **QUICK)
        assert record["status"] == "failed"
        assert "memory ran out with every plan" in record["error"]
        assert "--" not in record["error"], "a client has no flags"
        assert faulty.files() == []

    @pytest.mark.parametrize("place", ["read", "save"])
    def test_memory_that_runs_out_outside_the_networks(self, faulty: Server, plan: Path, image: str, place: str) -> None:
        plan.write_text(f"{place} 1")
        record = faulty.predict(image=image, **QUICK)
        assert "memory ran out outside the networks; send a smaller picture." in record["error"]

    def test_a_defect_is_told_to_the_operator_alone(self, faulty: Server, plan: Path, image: str) -> None:
        plan.write_text("/somewhere/defect 1")
        record = faulty.predict(image=image, **QUICK)
        assert "internal error (KeyError); please report it." in record["error"]
        assert "/somewhere" not in str(record)
        assert "KeyError: 'injected in /somewhere/defect'" in faulty.log.read_text()

    def test_a_full_disk(self, faulty: Server) -> None:
        noise = data_url(Image.effect_noise((128, 128), 90).convert("RGB"), format="JPEG")
        record = faulty.predict(image=noise, scale=4, preset="speed")
        assert record["status"] == "failed"
        assert "the result cannot be written: File too large" in record["error"]
        assert str(faulty.temporary) not in record["error"]
        assert faulty.files() == []

    def test_time_is_limited(self, faulty: Server, photo: Image.Image) -> None:
        # Four times the work: LONG itself takes less than 6 seconds on a fast machine.
        record = faulty.predict(**LONG | {"image": data_url(photo.resize((96, 80)))})
        assert record["status"] == "failed"
        assert "it took longer than 6 seconds" in record["error"]

    def test_a_signal_ends_it_while_it_is_busy(self, faulty: Server, image: str) -> None:
        worker = _make_busy(faulty, image=image, **LONG)
        faulty.process.send_signal(signal.SIGTERM)
        assert faulty.process.wait(60) == 0
        assert _is_gone(worker)
        assert faulty.loses_its_files()


def test_a_signal_takes_the_last_picture_away(image: str) -> None:
    with serving() as server:
        server.wait_for("READY")
        assert server.predict(image=image, **QUICK)["status"] == "succeeded"
        worker = server.worker()
        assert [path.name for path in server.files()] == ["upscaled.png"]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert _is_gone(worker)
        assert server.loses_its_files()


SCHEMA = schemathesis.openapi.from_path(ROOT / ".cog" / "openapi_schema.json").exclude(path="/shutdown")


@SCHEMA.parametrize()
@settings(max_examples=cases(25), deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_it(case: schemathesis.Case, server: Server, image: str) -> None:
    # Cog 0.23.1 makes a folder of that name, and stays busy for ever where it cannot: README, "As a service".
    if isinstance(case.body, dict) and isinstance(case.body.get("id"), str):
        case.body["id"] = _as_folder_name(case.body["id"])
    if case.path_parameters:
        case.path_parameters = {name: _as_folder_name(value) for name, value in case.path_parameters.items()}
    if isinstance(case.body, dict) and isinstance(case.body.get("input"), dict) and "image" in case.body["input"]:
        # Nearly no text is a picture; so that more than the first check is tried, half of them become one.
        if zlib.crc32(repr(case.body["input"]).encode()) % 2:
            case.body["input"] |= {"image": image}
        case.body["input"] |= {"kds_particles": 2} if case.body["input"].get("kds") else {}
        case.body.pop("webhook", None)
    answer = case.call(base_url=server.address, timeout=120)
    assert answer.status_code < 500
    assert "internal error" not in answer.text
    server.wait_for("READY", seconds=120)
    assert server.worker() == server.first_worker


def _as_folder_name(identifier: str) -> str:
    return "".join(letter for letter in identifier if letter.isalnum())[:60] or "x"


def _written(image: Image.Image, kind: str) -> bytes:
    pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@settings(max_examples=cases(20), deadline=None)
@given(data=st.data())
def test_no_picture_breaks_it(server: Server, photo: Image.Image, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF"]))
    mode = data.draw(st.sampled_from(["RGB", "L", "P", "CMYK"] if kind in ("TIFF", "JPEG") else ["RGB", "L"]))
    content = bytearray(_written(photo.convert("RGB" if (kind, mode) == ("JPEG", "P") else mode), kind))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 8))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    record = server.predict(image=data_url(bytes(content)), scale=1, num_inference_steps=1)
    assert record["status"] in ("succeeded", "failed")
    assert server.worker() == server.first_worker
    if record["status"] == "failed":
        # Whatever is wrong with it, a sentence about what was given: never one about the server, with a path or a traceback.
        assert re.fullmatch(r"(Prediction failed: )*(InputError|OptionError): [^\n]+\.", record["error"])
        assert "internal error" not in record["error"]
        assert str(server.temporary) not in record["error"]
