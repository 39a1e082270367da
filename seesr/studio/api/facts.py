"""Routes of what the studio is and knows: the machine, options, samplers, styles."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
from fastapi import APIRouter

from seesr.generation.options import GenerationOptions
from seesr.generation.samplers import SAMPLERS, SCHEDULES
from seesr.options import OptionModel, Options, ReadOptions, SaveOptions
from seesr.studio.api.dependencies import Admin, AnyModels, AnyStudio, AnyUser
from seesr.studio.api.schemas import (
    DeviceFacts,
    OptionGroups,
    OptionInfo,
    SamplerInfo,
    Samplers,
    Style,
    SystemFacts,
    UpscalingModel,
)
from seesr.studio.limits import OperatorLimits
from seesr.version import __version__
from seesr.weights.cache import Cache
from seesr.weights.hub import PULL_COMMAND
from seesr.weights.manifest import read_manifest
from seesr.weights.resolve import ENVIRONMENT_VARIABLE, FULL, TINY

router = APIRouter(tags=["facts"])


@router.get("/system")
def system(studio: AnyStudio, user: AnyUser) -> SystemFacts:
    """What the studio runs on."""
    memory = psutil.virtual_memory()
    return SystemFacts(
        version=__version__,
        python=platform.python_version(),
        devices={name: DeviceFacts(**facts) for name, facts in studio.devices(user).items()},
        memory_total=memory.total,
        memory_available=memory.available,
        disk_free=studio.files.free_bytes(),
    )


@router.get("/upscaling-model")
def upscaling_model(user: AnyUser) -> UpscalingModel:
    """The model that enlarges pictures, and what the full one is."""
    del user
    manifest = read_manifest()
    missing = Cache.default().missing(manifest)
    chosen = os.environ.get(ENVIRONMENT_VARIABLE) or (TINY if missing else FULL)
    base = next((source for source in manifest.source if source.must_accept), manifest.source[0])
    return UpscalingModel(
        name=Path(chosen).name,
        embedded=chosen == TINY,
        missing=len(missing),
        megabytes=sum(file.megabytes for _, file in manifest.files),
        licence=base.licence,
        licence_page=base.licence_page,
        command=f"{PULL_COMMAND} --accept-license",
    )


@router.get("/limits")
def limits(studio: AnyStudio, admin: Admin) -> OperatorLimits:
    """The operator's limits, as they stand in `studio.toml`; for admins."""
    del admin
    return studio.settings.limits


@router.get("/options")
def options(user: AnyUser) -> OptionGroups:
    """All options with bounds, default and help."""
    del user
    return OptionGroups(
        generation=_described(GenerationOptions),
        upscale=_described(Options),
        reading=_described(ReadOptions),
        saving=_described(SaveOptions),
    )


@router.get("/samplers")
def samplers(user: AnyUser) -> Samplers:
    """Samplers and noise schedules."""
    del user
    known = [SamplerInfo(name=sampler.name, aliases=list(sampler.aliases)) for sampler in SAMPLERS]
    return Samplers(samplers=known, schedules=list(SCHEDULES))


@router.get("/styles")
def styles(models: AnyModels, user: AnyUser) -> list[Style]:
    """The operator's styles."""
    del user
    known = models.styles()
    return [Style(name=name, prompt=prompt, negative_prompt=negative) for name, (prompt, negative) in known.items()]


def _described(model: type[OptionModel]) -> list[OptionInfo]:
    infos = list[OptionInfo]()
    for name, field in model.model_fields.items():
        minimum, maximum = model.bounds(name)
        infos.append(
            OptionInfo(
                name=name,
                help=model.describe(name),
                default=field.default,
                minimum=minimum,
                maximum=maximum,
                choices=list(model.choices(name)),
            )
        )
    return infos
