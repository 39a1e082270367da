"""Feature maps in files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seesr.autoencoder.feature_maps import FileBand


def test_no_place_for_map_files_is_no_memory_for_them(tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match=r"a file for feature maps cannot be created .*; set TMPDIR to another folder"):
        FileBand(1, 8, 8, torch.float32, tmp_path / "nowhere")
