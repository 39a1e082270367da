"""`seesr studio submit|jobs|cancel|gallery` against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import PHOTOS
from PIL import Image
from studio_server import ServedStudio, serving
from typer.testing import CliRunner, Result

from seesr.cli.studio import app
from seesr.client import ResponseError
from seesr.errors import InputError, OptionError

Ask = Callable[..., Result]
"""Runs a command with these arguments."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    with serving(tmp_path_factory.mktemp("studio"), "anna", "ben") as served:
        yield served


@pytest.fixture
def run(served: ServedStudio, monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.setenv("SEESR_STUDIO", served.address)
    monkeypatch.setenv("SEESR_STUDIO_KEY", served.key("ben"))

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


def last_record(result: Result) -> dict[str, Any]:
    """What was printed last; the worker, which is in this process, prints too."""
    return json.loads(result.stdout.splitlines()[-1])


def test_submit_waits_and_writes_the_pictures(run: Ask, tmp_path: Path) -> None:
    result = run("submit", "a cat", "--set", "batch_count=2", "--set", "sampler=Euler a", "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    job = last_record(result)
    assert (job["state"], job["request"]["options"]["sampler"]) == ("done", "Euler a")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{picture['id']}.png" for picture in job["pictures"]}
    for path in (tmp_path / "out").iterdir():
        Image.open(path).load()
    listed = run("gallery", "-o", tmp_path / "out", "--count", 2)
    assert all(picture["id"] in listed.stdout for picture in job["pictures"])
    assert job["id"] in run("jobs").stdout


def test_submit_of_each_task_names_the_picture(run: Ask) -> None:
    photo = PHOTOS / "chelsea.png"
    tasks = {
        ("--task", "upscale", "--set", "scale=2"): "upscale",
        ("--task", "tags"): "tags",
        (): "image to image",
        ("--mask", photo): "inpainting",
    }
    for arguments, task in tasks.items():
        result = run("submit", "--image", photo, "--wait", "--json", *arguments)
        assert result.exit_code == 0, result.output
        assert last_record(result)["request"]["task"] == task


def test_cancel_ends_a_job(run: Ask) -> None:
    job = last_record(run("submit", "slow", "--json"))["id"]
    assert run("cancel", job).exit_code == 0
    assert run("submit", "a cat", "--wait").exit_code == 0
    assert last_record(run("jobs", "--json", "--count", 2))["state"] == "cancelled"
    ended = last_record(run("jobs", "--json", "--count", 1))
    assert "had ended before: done" in run("cancel", ended["id"]).output


def test_what_is_wrong_is_said_in_a_sentence(run: Ask, tmp_path: Path) -> None:
    for arguments, kind, words in (
        (("submit", "--set", "steps"), OptionError, "NAME=VALUE"),
        (("submit", "--set", "steps=0"), OptionError, "steps is 0"),
        (("submit", "--task", "upscale"), OptionError, "--image"),
        (("submit", "--task", "tags", "a", "--image", PHOTOS / "chelsea.png"), OptionError, "picture alone"),
        (("submit", "--image", tmp_path / "none.png"), InputError, "cannot be read"),
        (("cancel", "nothing"), ResponseError, "no job"),
        (("jobs", "--address", "studio:7860"), OptionError, "write it as http://"),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, kind)
        assert words in str(result.exception)
    failed = run("submit", "fail", "--wait")
    assert failed.exit_code == 2
    assert "it failed" in failed.stdout
