"""Finds the folder of weights to load: what the user names, or the model that comes with the package."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from seesr.errors import WeightsError

PARTS = ("sd-turbo", "seesr", "ram")
"""Sub-folders of a weights folder in the published layout."""
ENVIRONMENT_VARIABLE = "SEESR_WEIGHTS"


@dataclass(frozen=True)
class Weights:
    """A folder of weights."""

    root: Path
    name: str
    """What results call it: the folder, or `tiny (embedded)`."""


def resolve_weights(given: str | os.PathLike[str] | None = None) -> Weights:
    """The folder `given`, else that of `SEESR_WEIGHTS`, else the embedded small model.

    Raises:
        WeightsError: the folder named does not exist or lacks a part.
    """
    named = given or os.environ.get(ENVIRONMENT_VARIABLE)
    weights = Weights(Path(named), str(named)) if named else Weights(_embedded(), "tiny (embedded)")
    missing = [part for part in PARTS if not (weights.root / part).is_dir()]
    if missing:
        raise WeightsError(
            f"{weights.root} is no weights folder: {', '.join(missing)} is missing. "
            f"It must hold the folders {', '.join(PARTS)}; "
            f"leave out --weights and {ENVIRONMENT_VARIABLE} for the embedded model."
        )
    return weights


def _embedded() -> Path:
    """In an installed wheel the model lies inside the package, in a clone at the top."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "embedded" / "tiny"
    return installed if installed.is_dir() else package.parent / "weights" / "tiny"
