"""The catalogue of well-known models, `weights/models.toml`, and what else may be asked for: repositories and addresses."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field

from seesr.errors import OptionError
from seesr.models.contents import Kind
from seesr.weights.manifest import read_toml

CATALOGUE_VARIABLE = "SEESR_CATALOGUE"
"""Path of a catalogue to use instead."""
_REPOSITORY = re.compile(
    r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w][\w./-]*))?(:(?P<file>[^:]+\.safetensors))?"
)


class ModelSource(BaseModel):
    """Where a model is: a repository of the hub at a revision, or an https address with its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str | None = None
    revision: str | None = None
    """None is the newest, which is recorded."""
    file: str | None = None
    """In the repository, of a model of one file; None takes a folder of diffusers, else the only safetensors file."""
    address: str | None = None
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Of the one file."""

    def __str__(self) -> str:
        if self.address is not None:
            return self.address
        return f"{self.repository}{f'@{self.revision}' if self.revision else ''}{f':{self.file}' if self.file else ''}"


class CatalogueEntry(ModelSource):
    """A well-known model."""

    name: str
    kind: Kind
    about: str
    megabytes: int = Field(ge=0)
    licence: str
    licence_page: str
    must_accept: bool = False


class Catalogue(BaseModel):
    """All of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: list[CatalogueEntry]


def read_catalogue() -> list[CatalogueEntry]:
    """The catalogue named by `SEESR_CATALOGUE`, else the one in the package.

    Raises:
        WeightsError: it cannot be read, or holds an invalid entry.
    """
    return read_toml(Catalogue, CATALOGUE_VARIABLE, "models.toml", "the catalogue").model


def parse_source(text: str, sha256: str | None = None) -> ModelSource:
    """What is asked for: a name of the catalogue, `owner/name[@revision][:file.safetensors]`, or an https address.

    Raises:
        OptionError: it is none of these, or an address without a SHA-256.
        WeightsError: the catalogue cannot be read.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256 := sha256.lower().removeprefix("0x")):
        raise OptionError(f"the SHA-256 {sha256!r} must have 64 hexadecimal digits.")
    if "://" in text:
        if sha256 is None:
            raise OptionError(f"an address is fetched only with the SHA-256 of its file; give that of {text[:200]} too.")
        return ModelSource(address=text, sha256=sha256)
    entries = read_catalogue()
    if entry := next((entry for entry in entries if entry.name == text), None):
        return entry
    if found := _REPOSITORY.fullmatch(text):
        return ModelSource(**found.groupdict(), sha256=sha256)
    raise OptionError(
        f"unknown model {text[:200]!r}; give owner/name[@revision][:file.safetensors] of the hub, an https address, or one "
        f"of the catalogue: {', '.join(entry.name for entry in entries)}."
    )
