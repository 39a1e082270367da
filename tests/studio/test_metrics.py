"""`/metrics`, `/health`, `/ready` and the log, of jobs that really run."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import httpx
import pytest
from job_requests import generation
from prometheus_client.parser import text_string_to_metric_families
from studio_server import serving, studio_app

from seesr.client import Client
from seesr.jobs import JobEvent
from seesr.studio.logs import JobLog, JsonLines
from seesr.studio.metrics import Metrics
from seesr.studio.records import LOCAL, User

ADMIN = User(name=LOCAL, role="admin")


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Value of each sample by name and labels."""
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def test_metrics_count_what_jobs_do(tmp_path: Path) -> None:
    with serving(tmp_path) as served, Client(served.address) as client:
        for prompt, state in (("a cat", "done"), ("fail", "failed")):
            job = client.submit(generation(prompt, batch_count=2))
            assert [event.kind for event in client.events(job.id)][-1] == state
        client.pause()
        client.submit(generation("a secret prompt"))
        text = httpx.get(f"{served.address}/metrics").text
    task = ("task", "text to image")
    found = samples(text)
    assert found["seesr_jobs_ended_total", frozenset({task, ("state", "done")})] == 1
    assert found["seesr_jobs_ended_total", frozenset({task, ("state", "failed")})] == 1
    assert found["seesr_jobs", frozenset({task, ("state", "pending")})] == 1
    assert found["seesr_pictures_total", frozenset({task})] == 2
    assert found["seesr_job_seconds_count", frozenset({task})] == 2
    assert found["seesr_wait_seconds_count", frozenset()] == 2
    assert found["seesr_queue_length", frozenset()] == 1
    assert found["seesr_queue_paused", frozenset()] == 1
    assert found["seesr_memory_bytes", frozenset({("process", "server")})] > 1e7
    assert "secret" not in text
    assert LOCAL not in text


def test_metrics_tell_stages_and_falls_from_the_record_of_a_picture(tmp_path: Path) -> None:
    with studio_app(tmp_path) as served:
        metrics = Metrics(served.studio)
        job = served.studio.submit(ADMIN, generation("a cat"))
        record = {
            "seconds": {"denoise": 2.5, "vae_decode": 1.0, "pixels": 1.0},
            "attempts": [{"rung": "whole", "reason": "out of memory"}],
        }
        metrics.observe(job, JobEvent(job=job.id, sequence=1, kind="picture", data={"record": record}))
        found = samples(metrics.text().decode())
    task = ("task", "text to image")
    assert found["seesr_out_of_memory_falls_total", frozenset()] == 1
    assert found["seesr_stage_seconds_sum", frozenset({task, ("stage", "denoise")})] == 2.5
    assert ("seesr_stage_seconds_sum", frozenset({task, ("stage", "pixels")})) not in found


def test_health_and_ready(tmp_path: Path) -> None:
    with serving(tmp_path, "anna", "ben") as served:
        for paused, status in ((None, 200), ("tea", 503), (None, 200)):
            served.studio.store.set_paused(paused)
            assert httpx.get(f"{served.address}/health").json() == {"status": "ok"}
            answer = httpx.get(f"{served.address}/ready")
            assert (answer.status_code, answer.json()) == (status, {"status": "paused" if paused else "ready"})


@pytest.mark.parametrize("prompts", [False, True])
def test_the_log_has_ids_of_jobs_and_prompts_only_if_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, prompts: bool
) -> None:
    log = JobLog(prompts)
    with studio_app(tmp_path) as served, caplog.at_level(logging.INFO, "seesr.studio.jobs"):
        served.studio.dispatcher.watchers[:] = [log.observe]
        ids = list[str]()
        for prompt in ("a secret cat", "a secret fail"):
            job = served.studio.submit(ADMIN, generation(prompt))
            ids.append(served.studio.wait(ADMIN, job.id, 20).id)
    formatter = JsonLines()
    lines = [json.loads(formatter.format(record)) for record in caplog.records if record.name == "seesr.studio.jobs"]
    assert [line["message"] for line in lines] == ["job started", "job picture", "job ended", "job started", "job ended"]
    assert [line["job"] for line in lines] == [ids[0]] * 3 + [ids[1]] * 2
    assert [line["state"] for line in lines if line["message"] == "job ended"] == ["done", "failed"]
    assert all(line["time"] and line["level"] == "info" for line in lines)
    assert ("secret" in json.dumps(lines)) is prompts


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        import sys

        record = logging.LogRecord("seesr", logging.ERROR, "", 0, "it failed: %s", ("no",), sys.exc_info())
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "it failed: no"
    assert "ValueError" in json.loads(line)["traceback"]
