"""Routes of what the studio is and knows: the machine, options, samplers, styles."""

from __future__ import annotations

import platform

import psutil
from fastapi import APIRouter

from seesr.generation.options import GenerationOptions
from seesr.generation.samplers import SAMPLERS, SCHEDULES
from seesr.options import OptionModel, Options, ReadOptions, SaveOptions
from seesr.studio.api.dependencies import AnyModels, AnyStudio, AnyUser
from seesr.studio.api.schemas import DeviceFacts, OptionGroups, OptionInfo, SamplerInfo, Samplers, Style, SystemFacts
from seesr.version import __version__

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
