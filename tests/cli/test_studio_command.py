"""`seesr studio`: refusals and users in this process, and the server in one of its own."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from helpers import ROOT, Outcome, Run, photograph

from seesr import cli
from seesr.client import Client
from seesr.generation.options import GenerationOptions
from seesr.jobs import GenerationRequest, UpscaleRequest, content_hash
from seesr.options import Options
from seesr.studio.limits import OperatorLimits
from seesr.studio.settings import StudioSettings
from seesr.studio.store import Store

HEAVY = """
import json, sys
from seesr.cli import main
try:
    main()
finally:
    print(json.dumps([name for name in ("torch", "diffusers", "transformers") if name in sys.modules]))
"""
PASSWORD = "correct horse"
CAT = GenerationRequest(options=GenerationOptions(prompt="a cat"))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEESR_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def studio(data: Path, run_main: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`seesr studio` in this process; `stdin` is what is typed."""

    def run(*arguments: object, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        return run_main(cli.main, "studio", *arguments)

    return run


@dataclass
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    address: str

    def end(self, number: signal.Signals) -> tuple[int, list[str]]:
        """The exit code after a signal, and which heavy libraries it had imported."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, json.loads(out)


@contextmanager
def started(data: Path, *arguments: object, **environment: str) -> Iterator[Running]:
    """A server, killed at the end if it still runs."""
    command = [sys.executable, "-c", HEAVY, "studio", "--data", data, "--port", 0, "--devices", "cpu", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*map(str, command)], text=True, env=os.environ | environment, **pipes) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if match := re.search(r"studio: (http://\S+)/$", line):
                # Read on, or the pipe gets full.
                threading.Thread(target=process.stderr.read, daemon=True).start()
                try:
                    yield Running(process, match[1])
                finally:
                    process.kill()
                return
        pytest.fail(said)


@pytest.mark.server
def test_server_makes_a_picture_without_loading_models_itself(data: Path) -> None:
    content = io.BytesIO()
    photograph("chelsea.png", (150, 80, 182, 104)).save(content, "PNG")
    picture = content.getvalue()
    with started(data, SEESR_AUTH=f"ada:{PASSWORD}") as running:
        with pytest.raises(Exception, match="log in"), Client(running.address) as nobody:
            nobody.jobs()
        with Client(running.address, user=("ada", PASSWORD), timeout=60) as ada:
            ada.upload(picture)
            request = UpscaleRequest(
                task="upscale", image=content_hash(picture), options=Options(scale=1, steps=1, tags=False)
            )
            job = ada.wait(ada.submit(request).id, timeout=240)
            assert (job.state, job.error) == ("done", None)
            assert ada.picture_file(job.pictures[0].id)[:8] == b"\x89PNG\r\n\x1a\n"
        children = psutil.Process(running.process.pid).children(recursive=True)
        assert children
        assert running.end(signal.SIGTERM) == (0, [])
        assert not [child for child in children if child.is_running()]


@pytest.mark.server
def test_end_waits_for_no_stream_and_loses_no_job(data: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"ada:{PASSWORD}\n", encoding="utf-8")
    with started(data, "--paused", "--root-path", "/s", SEESR_AUTH_FILE=str(secret)) as running:
        assert running.address.endswith("/s")
        with Client(running.address, user=("ada", PASSWORD), timeout=60) as ada:
            job = ada.submit(CAT)
            queue = ada.queue()
            assert (queue.paused, queue.reason, queue.pending) == (True, "started with --paused", 1)
            stream = httpx.Client(auth=("ada", PASSWORD), timeout=60)
            with stream.stream("GET", f"{running.address}/api/v1/jobs/{job.id}/events") as answer:
                assert answer.status_code == 200
                assert running.end(signal.SIGINT) == (0, [])
    with Store(f"sqlite:///{data / 'studio.db'}") as store:
        assert store.job(job.id).state == "pending"


def test_users_are_added_listed_and_removed(studio: Run, data: Path) -> None:
    assert "ada may log in, as admin." in studio("users", "add", "ada", stdin=f"{PASSWORD}\n").err
    assert "bob may log in, as user." in studio("--data", data, "users", "add", "bob", stdin=PASSWORD).err
    assert "there is a user 'bob'" in studio("users", "add", "bob", stdin=PASSWORD).err
    assert "the password has 5 characters; it needs 8" in studio("users", "add", "carl", stdin="short").err
    key = studio("users", "key", "bob", "--label", "laptop").out.strip()
    assert key.startswith("sk-")
    listed = studio("users", "list", "--data", data).out
    assert re.fullmatch(rf"ada  admin\nbob  user\n  key {key.split('-')[1]}  \d{{4}}-\d\d-\d\d  laptop\n", listed)
    assert studio("users", "key", "bob", "--remove", key.split("-")[1]).code == 0
    assert studio("users", "password", "bob", stdin="another one").code == 0
    with Store(f"sqlite:///{data / 'studio.db'}") as store:
        store.add_job("bob", CAT)
    assert studio("users", "remove", "bob", "--yes").code == 0
    assert studio("users", "list").out == "ada  admin\n"
    with Store(f"sqlite:///{data / 'studio.db'}") as store:
        assert store.jobs() == []
    assert "no user" in studio("users", "remove", "bob", "--yes").err


def test_what_others_reach_has_users(studio: Run) -> None:
    refused = studio("--host", "0.0.0.0", "--port", 0)
    assert refused.code == 2
    assert "others reach 0.0.0.0, and there are no users; add one with `seesr studio users add NAME`." in refused.err


def test_refusals_say_what_to_do(studio: Run, data: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1, port {port}, cannot be listened at" in studio("--port", port).err
    assert "--auth has no colon; write NAME:PASSWORD." in studio("--port", 0, "--auth", "ada").err
    assert "give each device once" in studio("--port", 0, "--devices", "cpu,cpu").err
    assert "give one of --lowvram, --medvram and" in studio("--port", 0, "--lowvram", "--medvram").err
    assert f"there is no file {tmp_path / 'none'}" in studio("--config", tmp_path / "none").err
    data.mkdir(exist_ok=True)
    (data / "studio.toml").write_text("hosts = ['*']\n", encoding="utf-8")
    assert "hosts is ['*']: write a host's name alone, such as studio.example, not *." in studio().err
    (data / "studio.toml").write_text("[limits]\nsteps = 0\n", encoding="utf-8")
    assert re.search(r"limits.steps|steps is 0", studio().err)
    (data / "studio.toml").write_text("[", encoding="utf-8")
    assert "studio.toml cannot be read as TOML" in studio().err


def test_example_of_the_settings_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall("```toml\n(.*?)```", (ROOT / "docs" / "studio.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "studio.toml").write_text(example, encoding="utf-8")
    settings = StudioSettings.read(tmp_path / "studio.toml", port=8000, host=None)
    assert (settings.port, settings.host, settings.limits.seconds) == (8000, "127.0.0.1", 3600)
    assert {*tomllib.loads(example)} == {*StudioSettings.model_fields}, "a setting is not in the example"
    assert {*tomllib.loads(example)["limits"]} == {*OperatorLimits.model_fields}


def test_backup_is_restored_into_a_new_folder(studio: Run, data: Path, tmp_path: Path) -> None:
    studio("users", "add", "ada", stdin=PASSWORD)
    assert studio("backup", tmp_path / "studio.tar").code == 0
    assert "exist" in studio("backup", tmp_path / "studio.tar").err
    assert studio("restore", tmp_path / "studio.tar", "--data", tmp_path / "new").code == 0
    assert studio("users", "list", "--data", tmp_path / "new").out == "ada  admin\n"
    assert "is not overwritten" in studio("restore", tmp_path / "studio.tar", "--data", data).err
