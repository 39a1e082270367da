"""What is to be fetched for a model: which files of a repository or address, how large, under which licence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage] # its home depends on the version
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers

from seesr.errors import WeightsError, listed
from seesr.models.catalogue import CatalogueEntry, ModelSource
from seesr.models.contents import Kind
from seesr.weights.config import DIFFUSERS_FILE
from seesr.weights.fetch import RemoteFile
from seesr.weights.hub import failure_reason, hub_endpoint

FREE_LICENCES = ("apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "isc", "mit", "unlicense")
"""As the hub names them: without terms of use, so that nothing is asked."""
CONFIGS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
)
WEIGHTS = ("text_encoder/model", f"unet/{DIFFUSERS_FILE}", f"vae/{DIFFUSERS_FILE}")
"""Of a checkpoint in diffusers' layout; all else in its repository is left there."""
VARIANTS = (".safetensors", ".fp16.safetensors")
SHOWN = 8
API_SECONDS = 30.0


@dataclass(frozen=True)
class Plan:
    """A model that is to be fetched."""

    source: str
    name: str
    kind: Kind | None
    """None where only the file will say."""
    files: Mapping[str, RemoteFile]
    """By path in the model's folder; of a model of one file that alone, under any path."""
    is_folder: bool
    revision: str | None = None
    licence: str | None = None
    """None of what states none."""
    licence_page: str | None = None
    must_accept: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files whose size is known beforehand."""
        return sum(file.size or 0 for file in self.files.values())


def make_plan(source: ModelSource) -> Plan:
    """What is to be fetched; the hub is asked, an address is not.

    Raises:
        WeightsError: the hub does not answer, or the repository has no model that can be used.
    """
    if source.address is not None:
        # parse_source sees to the digest.
        stem = PurePosixPath(unquote(urlsplit(source.address).path)).stem
        files = {"model": RemoteFile(source.address, source.sha256 or "")}
        return Plan(str(source), stem, None, files, is_folder=False)
    return _of_repository(source)


def _of_repository(source: ModelSource) -> Plan:
    endpoint, repository = hub_endpoint(), source.repository or ""
    try:
        info = HfApi(endpoint).model_info(repository, revision=source.revision, files_metadata=True, timeout=API_SECONDS)
    except (HTTPError, OSError, RuntimeError, ImportError, ValueError) as error:
        # ImportError and ValueError: the proxy setting is wrong, or needs a package.
        raise WeightsError(f"{repository} could not be looked up at {endpoint}: {failure_reason(error)}.") from error
    revision, siblings = info.sha or source.revision or "main", {file.rfilename: file for file in info.siblings or ()}
    chosen = _chosen(source, siblings)
    is_folder = len(chosen) > 1
    secret = {name: value for name, value in build_hf_headers().items() if name.lower() == "authorization"}

    def remote(file: RepoSibling) -> RemoteFile:
        address = hf_hub_url(repository, file.rfilename, revision=revision, endpoint=endpoint)
        is_safetensors = file.rfilename.endswith(".safetensors")
        digest = file.lfs.sha256 if file.lfs else file.blob_id
        if not is_folder and source.sha256 is not None:
            digest = source.sha256
        if digest is None:
            raise WeightsError(f"the hub states no digest for {file.rfilename} of {repository}; it is not fetched.")
        return RemoteFile(address, digest, file.size, secret, is_safetensors)

    files = {path: remote(siblings[name]) for path, name in chosen.items()}
    is_known = isinstance(source, CatalogueEntry)
    card = (info.card_data.to_dict() if info.card_data else {}) if not is_known else {}
    licence = source.licence if is_known else _text(card.get("license_name")) or _text(card.get("license"))
    stem = PurePosixPath(next(iter(chosen.values()))).stem
    return Plan(
        source=str(source) if not is_known else f"{repository}{f':{source.file}' if source.file else ''}",
        name=source.name if is_known else repository.rpartition("/")[2] if is_folder else stem,
        kind=source.kind if is_known else None,
        files=files,
        is_folder=is_folder,
        revision=revision,
        licence=licence,
        licence_page=source.licence_page if is_known else _text(card.get("license_link")) or f"{endpoint}/{repository}",
        must_accept=source.must_accept if is_known else licence is not None and licence.lower() not in FREE_LICENCES,
    )


def _chosen(source: ModelSource, names: Iterable[str]) -> dict[str, str]:
    """The files of a repository that are fetched, by the path at which each is kept."""
    names, repository = set(names), source.repository
    if source.file is not None:
        if source.file not in names:
            raise WeightsError(f"{repository} has no file {source.file!r}; it has: {_files_listed(names)}.")
        return {"model": source.file}
    if "model_index.json" in names:
        weights = {f"{stem}.safetensors": _variant(repository, stem, names) for stem in WEIGHTS}
        return {name: name for name in CONFIGS if name in names} | weights
    if "config.json" in names and any(DIFFUSERS_FILE + suffix in names for suffix in VARIANTS):
        weights = {f"{DIFFUSERS_FILE}.safetensors": _variant(repository, DIFFUSERS_FILE, names)}
        return {"config.json": "config.json"} | weights
    found = {name for name in names if name.endswith(".safetensors")}
    if len(found) != 1:
        what = "several safetensors files; add :FILE to take one" if found else "no safetensors file, and no other is read"
        raise WeightsError(f"{repository} has {what}: {_files_listed(found or names)}.")
    return {"model": found.pop()}


def _variant(repository: str | None, stem: str, names: Iterable[str]) -> str:
    """The file in full precision, else in half."""
    for suffix in VARIANTS:
        if stem + suffix in names:
            return stem + suffix
    raise WeightsError(f"{repository} has no {stem}.safetensors, and no other file is read; look for another repository.")


def _files_listed(names: Iterable[str]) -> str:
    return listed(sorted(name for name in names if name.endswith(".safetensors")) or sorted(names), SHOWN) or "nothing"


def _text(value: object) -> str | None:
    """A line of a card, which is a stranger's."""
    return " ".join(value.split())[:200] or None if isinstance(value, str) else None
