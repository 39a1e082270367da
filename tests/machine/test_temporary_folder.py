import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HOLDER = """
from seesr.machine.temporary_folder import make_temporary_folder
folder = make_temporary_folder()
(folder / "deep").mkdir()
(folder / "deep" / "file").write_text("x")
print(folder, flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "import signal; signal.pause()"])
def test_it_goes_with_its_process(tmp_path: Path, end: str) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(end=end)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    with holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        assert folder.parent == tmp_path
        if "pause" in end:
            assert (folder / "deep" / "file").exists()
            os.killpg(holder.pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []
