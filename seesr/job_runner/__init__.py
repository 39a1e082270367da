"""Runs jobs of every task where the models are, and tells of each by events.

The libraries of the models are imported when the first job needs them: who only names `WorkerSettings` never loads PyTorch.
"""

from seesr.job_runner.runner import JobRunner
from seesr.job_runner.settings import WorkerSettings

__all__ = ["JobRunner", "WorkerSettings"]
