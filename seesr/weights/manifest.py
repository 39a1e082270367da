"""The manifest of the full model, `weights/manifest.toml`: its files, their locations and their checksums."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from seesr.errors import WeightsError

ENVIRONMENT_VARIABLE = "SEESR_MANIFEST"
"""Path of a manifest to use instead, for example with other mirrors."""
Model = TypeVar("Model", bound=BaseModel)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Location(_Table):
    """A repository on the hub, or for the type `url` the start of an address."""

    type: Literal["model", "space", "url"]
    repository: str
    revision: str | None = None


class WeightFile(_Table):
    """One file of the model."""

    path: str
    """Path in a weights folder."""
    remote: str
    """Path in its repository."""
    megabytes: int = Field(ge=0)
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    drop: list[str] = []
    """Prefixes of tensors of a legacy file that no network uses; they are left out when it is converted."""

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError("must lie inside the weights folder")
        return path

    @property
    def cached_path(self) -> str:
        """Path in the cache, where legacy files are stored as safetensors."""
        return str(PurePosixPath(self.path).with_suffix(".safetensors")) if self.is_legacy else self.path

    @property
    def is_legacy(self) -> bool:
        """Whether it is a PyTorch file, which is converted."""
        return self.path.endswith((".pth", ".bin"))


class Source(_Table):
    """Files with the same repository and licence."""

    name: str
    type: Literal["model", "space", "url"]
    repository: str
    revision: str
    mirrors: list[Location]
    licence: str
    licence_page: str
    must_accept: bool
    files: list[WeightFile]

    @model_validator(mode="after")
    def _mirrors_are_checked(self) -> Source:
        if any(mirror.revision is None for mirror in self.mirrors) and any(file.sha256 is None for file in self.files):
            raise ValueError("a mirror without a revision needs a sha256 for every file")
        return self

    @property
    def locations(self) -> list[Location]:
        """The repository, then its mirrors."""
        return [Location(type=self.type, repository=self.repository, revision=self.revision), *self.mirrors]


class Manifest(_Table):
    """All files of a model."""

    source: list[Source]

    @property
    def files(self) -> list[tuple[Source, WeightFile]]:
        return [(source, file) for source in self.source for file in source.files]


def read_manifest() -> Manifest:
    """Reads the manifest named by `SEESR_MANIFEST`, else the one in the package.

    Raises:
        WeightsError: it cannot be read, or holds an invalid entry.
    """
    return read_toml(Manifest, ENVIRONMENT_VARIABLE, "manifest.toml", "the manifest")


def read_toml(model: type[Model], variable: str, name: str, shown: str) -> Model:
    """Reads the TOML file that the environment's `variable` names, else `name` in the package, as a `model`.

    Args:
        shown: what messages call it.

    Raises:
        WeightsError: it cannot be read, or holds an invalid entry.
    """
    path = Path(os.environ.get(variable) or beside_package(name))
    try:
        return model(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise WeightsError(f"{shown} {path} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{shown} {path} is not TOML ({error}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(key) for key in first["loc"])
        raise WeightsError(f"{shown} {path} is wrong at {location}: {first['msg']}.") from error


def beside_package(name: str) -> Path:
    """Path of a file or folder of `weights/`, which is in the package of an installed wheel, or at the top of a clone."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "embedded" / name
    return installed if installed.exists() else package.parent / "weights" / name
