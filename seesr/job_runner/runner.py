"""The worker that runs jobs in its own process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from seesr.errors import CanceledError, SeeSRError
from seesr.job_runner.loaded_models import LoadedModels
from seesr.job_runner.running_job import RunningJob
from seesr.job_runner.settings import WorkerSettings
from seesr.jobs import JobEvent, JobRequest

logger = logging.getLogger("seesr")


class JobRunner:
    """Runs any `JobRequest`, one at a time, on models that stay loaded. Implements `Worker`.

    All jobs should come from one lasting thread (see `Upscaler`); `cancel` and `skip` come from any. A request names models
    of the user's folders, never a path.

    Args:
        weight_bytes: that the weights of all loaded models may take together; None is half of the memory that may be used.
    """

    def __init__(self, settings: WorkerSettings | None = None, weight_bytes: int | None = None) -> None:
        self.models = LoadedModels(settings or WorkerSettings(), weight_bytes)
        self._current: RunningJob | None = None

    def run(self, job: str, request: JobRequest, inputs: Mapping[str, bytes], emit: Callable[[JobEvent], None]) -> None:
        """See `Worker.run`.

        Events and their data: `started`; `progress` {stage, step, steps, picture, pictures, eta, plan}; `preview` {picture,
        media_type}; `note` {text}; `picture` {index, seed, width, height, media_type, settings, record}; `tags` {tags};
        `done` {result, notes}, `failed` {error, code} or `cancelled`.
        """
        from seesr.public_error import sanitize_errors

        run = self._current = RunningJob(job, emit, self.models)
        run.say("started")
        try:
            with sanitize_errors(), self.models.running(run.check):
                result = run.make(request, inputs)
        except CanceledError:
            run.say("cancelled")
        except Exception as error:
            # Public by now: what else there was to say went to the log.
            logger.debug("job %s failed", job, exc_info=True)
            code = type(error).__name__ if isinstance(error, SeeSRError) else "InternalError"
            run.say("failed", error=self.models.without_paths(str(error)), code=code)
        else:
            run.say("done", result=result, notes=list(run.notes))
        finally:
            self._current = None

    def cancel(self, job: str) -> None:
        run = self._current
        if run is not None and run.job == job:
            run.is_cancelled = True

    def skip(self, job: str) -> None:
        run = self._current
        if run is not None and run.job == job:
            run.is_skipped = True

    def loaded(self) -> list[str]:
        return self.models.loaded()

    def close(self) -> None:
        if run := self._current:
            run.is_cancelled = True
        self.models.unload()
