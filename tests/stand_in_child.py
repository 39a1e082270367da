"""The worker's process without models: what `LocalWorker(command=[python, this])` starts."""

from __future__ import annotations

import os

from stand_in_worker import StandInWorker

from seesr.studio.worker.child import serve

if __name__ == "__main__":
    serve(lambda settings: StandInWorker(float(os.environ.get("STAND_IN_SECONDS", "0"))))
