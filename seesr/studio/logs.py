"""The studio's log: a JSON object a line, with the ids of jobs; prompts only where the operator asks for them."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from seesr.jobs import ENDS, GenerationRequest, JobEvent, UpscaleRequest
from seesr.studio.records import Job

logger = logging.getLogger("seesr.studio.jobs")
FACTS = "facts"
"""Attribute of a log record that holds its further values: `logger.info(text, extra={FACTS: {...}})`."""


class JsonLines(logging.Formatter):
    """Each record as a line: time (ISO 8601, UTC), level, logger, message, its facts, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FACTS, {}),
        }
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values, ensure_ascii=False, default=str)


class JobLog:
    """Writes when jobs begin and end, and their pictures.

    Args:
        prompts: write prompts too, and the sentences of errors, which may quote them.
    """

    def __init__(self, prompts: bool = False) -> None:
        self._prompts = prompts

    def observe(self, job: Job, event: JobEvent) -> None:
        """Writes what is worth a line of an event."""
        facts: dict[str, Any] = {"job": job.id, "user": job.user, "task": job.request.task}
        if event.kind == "started":
            facts |= {"device": job.device, **self._words(job)}
        elif event.kind == "picture":
            facts |= {name: event.data[name] for name in ("id", "width", "height") if name in event.data}
        elif event.kind in ENDS:
            facts["state"] = job.state
            if job.started is not None and job.ended is not None:
                facts["seconds"] = round((job.ended - job.started).total_seconds(), 3)
            if job.error is not None and self._prompts:
                facts["error"] = job.error
        else:
            return
        kind = "ended" if event.kind in ENDS else event.kind
        logger.info("job %s", kind, extra={FACTS: facts})

    def _words(self, job: Job) -> dict[str, str]:
        request = job.request
        if not self._prompts or not isinstance(request, GenerationRequest | UpscaleRequest):
            return {}
        return {"prompt": request.options.prompt}


def log_config(requests: bool = False) -> dict[str, Any]:
    """What `logging.config.dictConfig`, and uvicorn's `log_config`, takes to write such lines to standard error.

    Args:
        requests: write each HTTP request too; clients that poll send several a second.
    """
    loud = {"handlers": ["lines"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLines}},
        "handlers": {"lines": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "loggers": {
            "seesr": loud,
            "uvicorn": loud,
            "uvicorn.access": loud | {"level": "INFO" if requests else "WARNING"},
        },
    }
