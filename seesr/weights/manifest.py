"""What the full model's files are, where they come from, and what they must be: `weights/manifest.toml`."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from seesr.errors import WeightsError

ENVIRONMENT_VARIABLE = "SEESR_MANIFEST"
"""An operator's own manifest, with own mirrors."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(_Table):
    """A repository on the hub, or the beginning of an address."""

    type: Literal["model", "space", "url"]
    repository: str
    revision: str | None = None


class File(_Table):
    """One file of the model."""

    path: str
    """Place in a weights folder."""
    remote: str
    """Place in its repository."""
    megabytes: int = Field(ge=0)
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    drop: list[str] = []
    """Beginnings of names: tensors of a legacy file that no network uses, left out when it is converted."""

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError("must lie inside the weights folder")
        return path

    @property
    def kept_as(self) -> str:
        """Its place once it is in the cache: everything is kept as safetensors."""
        return str(PurePosixPath(self.path).with_suffix(".safetensors")) if self.is_legacy else self.path

    @property
    def is_legacy(self) -> bool:
        """Whether it is a PyTorch file that will be converted."""
        return self.path.endswith((".pth", ".bin"))


class Source(_Table):
    """Files of one origin and one licence."""

    name: str
    type: Literal["model", "space", "url"]
    repository: str
    revision: str
    mirrors: list[Place]
    licence: str
    licence_page: str
    must_accept: bool
    files: list[File]

    @model_validator(mode="after")
    def _mirrors_are_checked(self) -> Source:
        if any(place.revision is None for place in self.mirrors) and any(file.sha256 is None for file in self.files):
            raise ValueError("a mirror without a revision needs a sha256 for every file")
        return self

    @property
    def places(self) -> list[Place]:
        """Where its files may be, the first choice first."""
        return [Place(type=self.type, repository=self.repository, revision=self.revision), *self.mirrors]


class Manifest(_Table):
    """All files of a model."""

    source: list[Source]

    @property
    def files(self) -> list[tuple[Source, File]]:
        return [(source, file) for source in self.source for file in source.files]


def read_manifest() -> Manifest:
    """The manifest that `SEESR_MANIFEST` names, else the one that comes with the package.

    Raises:
        WeightsError: it cannot be read, or says something that has no meaning.
    """
    path = Path(os.environ.get(ENVIRONMENT_VARIABLE) or beside_package("manifest.toml"))
    try:
        return Manifest(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise WeightsError(f"the manifest {path} cannot be read: {error.strerror or error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise WeightsError(f"the manifest {path} is not TOML ({error}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WeightsError(f"the manifest {path} is wrong at {where}: {first['msg']}.") from error


def beside_package(name: str) -> Path:
    """A file or folder of `weights/`: in an installed wheel it lies inside the package, in a clone at the top."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "embedded" / name
    return installed if installed.exists() else package.parent / "weights" / name
