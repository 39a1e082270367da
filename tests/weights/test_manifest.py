"""The manifest of the full model."""

from __future__ import annotations

from pathlib import Path

import pytest

from seesr import WeightsError
from seesr.weights.manifest import beside_package, read_manifest

TINY = beside_package("tiny")


def test_the_manifest_names_every_file_that_is_loaded() -> None:
    manifest = read_manifest()
    kept = {file.cached_path for _, file in manifest.files}
    # The embedded model has the published layout; only RAM's file is named otherwise, its size is no config file, and the
    # published model has no cleaner.
    here = {path.relative_to(TINY).as_posix() for path in TINY.rglob("*") if path.is_file()}
    here = {path for path in here if not path.startswith("cleaner/")}
    here = {path.replace("ram_tiny", "ram_swin_large_14m") for path in here} - {"ram/config.json", "seesr.json"}
    assert here <= kept
    assert all(len(source.revision) == 40 for source in manifest.source)
    licences = {source.licence for source in manifest.source}
    assert licences == {"Stability AI Community License", "Apache-2.0"}


@pytest.mark.parametrize(
    ("text", "words"),
    [("[[source]", "is not TOML"), ("source = 3", "is wrong at source"), ("[[source]]\nname = 'x'", "is wrong at source.0")],
)
def test_a_bad_manifest_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    path = tmp_path / "manifest.toml"
    path.write_text(text)
    monkeypatch.setenv("SEESR_MANIFEST", str(path))
    with pytest.raises(WeightsError, match=words):
        read_manifest()
    monkeypatch.setenv("SEESR_MANIFEST", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="cannot be read"):
        read_manifest()
