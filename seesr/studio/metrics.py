"""What a monitoring system asks: `/metrics` (Prometheus' text format), `/health` and `/ready`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import psutil
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel

from seesr.jobs import ENDS, JobEvent
from seesr.studio.api.dependencies import AnyStudio
from seesr.studio.records import Job
from seesr.studio.studio import Studio

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
"""Upper bounds of the buckets."""
DEPRECATED_STAGES = ("decode", "pixels")
"""Second names that `Result.record` gives to stages."""


class Metrics:
    """Counts what jobs do, from now on, and asks the studio for what is at the moment of the question.

    Counts have a job's task, never its user, id or words.
    """

    def __init__(self, studio: Studio) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Now(studio))
        self._ended = Counter("seesr_jobs_ended", "Jobs that have ended.", ["task", "state"], registry=self._registry)
        self._wait = Histogram(
            "seesr_wait_seconds", "From when a job was asked for to its start.", buckets=SECONDS, registry=self._registry
        )
        self._run = Histogram(
            "seesr_job_seconds", "From a job's start to its end.", ["task"], buckets=SECONDS, registry=self._registry
        )
        self._stages = Histogram(
            "seesr_stage_seconds", "Seconds of a stage.", ["task", "stage"], buckets=SECONDS, registry=self._registry
        )
        self._pictures = Counter("seesr_pictures", "Finished pictures.", ["task"], registry=self._registry)
        self._falls = Counter(
            "seesr_out_of_memory_falls",
            "Memory plans that ran out of memory, after which a smaller one was tried.",
            registry=self._registry,
        )

    def observe(self, job: Job, event: JobEvent) -> None:
        """Counts an event; with that of the end the job is as the store keeps it."""
        task = job.request.task
        if event.kind == "picture":
            record = event.data.get("record", {})
            self._pictures.labels(task).inc()
            self._falls.inc(len(record.get("attempts", ())))
            for stage, seconds in record.get("seconds", {}).items():
                if stage not in DEPRECATED_STAGES:
                    self._stages.labels(task, stage).observe(seconds)
        if event.kind in ENDS:
            self._ended.labels(task, job.state).inc()
            if job.started is not None and job.ended is not None:
                self._wait.observe((job.started - job.created).total_seconds())
                self._run.labels(task).observe((job.ended - job.started).total_seconds())

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)


class Status(BaseModel):
    """How the server is."""

    status: Literal["ok", "ready", "paused"]


class _Now(Collector):
    """What is at this moment: jobs of the store, memory."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def describe(self) -> Iterable[Metric]:
        return ()  # else the registry collects once to learn the names

    def collect(self) -> Iterable[Metric]:
        jobs = GaugeMetricFamily("seesr_jobs", "Jobs that the store keeps.", labels=["task", "state"])
        for (state, task), count in self._studio.store.counts().items():
            jobs.add_metric([task, state], count)
        yield jobs
        queue = self._studio.store.queue_status()
        yield GaugeMetricFamily("seesr_queue_length", "Jobs that wait.", value=queue.pending)
        yield GaugeMetricFamily("seesr_queue_paused", "1 while no job is begun.", value=queue.paused)
        yield GaugeMetricFamily("seesr_disk_free_bytes", "Room for pictures.", value=self._studio.files.free_bytes())
        memory = GaugeMetricFamily("seesr_memory_bytes", "Resident memory of the processes.", labels=["process"])
        server = psutil.Process()
        memory.add_metric(["server"], server.memory_info().rss)
        memory.add_metric(["workers"], sum(map(_resident, server.children(recursive=True))))
        yield memory


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return 0


router = APIRouter(tags=["monitoring"])


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Metrics in Prometheus' text format."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/health")
def health() -> Status:
    """Whether the server answers."""
    return Status(status="ok")


@router.get("/ready", responses={503: {"model": Status, "description": "It begins no jobs now."}})
def ready(studio: AnyStudio, response: Response) -> Status:
    """Whether jobs are begun."""
    paused = studio.store.queue_status().paused
    response.status_code = 503 if paused else 200
    return Status(status="paused" if paused else "ready")
