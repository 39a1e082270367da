"""ControlNet in a request, in the form of the extension sd-webui-controlnet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seesr.generation.controls import PREPROCESSORS, ControlUnit
from seesr.jobs import content_hash
from seesr.notes import Notes
from seesr.options import Limits
from seesr.studio.api.sdapi.errors import UnprocessableError
from seesr.studio.api.sdapi.noting import NO_SCRIPT
from seesr.studio.api.sdapi.pictures import from_base64, require_picture
from seesr.studio.errors import UnknownNameError

CONTROLNET = "controlnet"
"""Name of the script, in small letters."""


def control_units(
    scripts: Mapping[str, Any], image: str | None, known: Sequence[str], limits: Limits, notes: Notes
) -> tuple[tuple[ControlUnit[str], ...], dict[str, bytes]]:
    """The units of `alwayson_scripts`, and the pictures that they bring, by content hash.

    Args:
        image: content hash of the picture that the job begins from, of a unit without one.
        known: names of the ControlNets.

    Raises:
        UnknownNameError: there is no such ControlNet.
        UnprocessableError: a picture is missing or cannot be read, or a module is unknown.
    """
    controls, pictures = list[ControlUnit[str]](), dict[str, bytes]()
    for name, script in scripts.items():
        arguments = script.get("args") if isinstance(script, dict) else None
        units = [unit for unit in arguments if isinstance(unit, dict)] if isinstance(arguments, list) else []
        if name.lower() == CONTROLNET:
            controls += [_unit(unit, image, known, limits, pictures) for unit in units if _is_enabled(unit)]
        elif units:
            notes.add("always-on scripts that are not here were left out")
    return tuple(controls), pictures


def _unit(
    unit: Mapping[str, Any], image: str | None, known: Sequence[str], limits: Limits, pictures: dict[str, bytes]
) -> ControlUnit[str]:
    name = str(unit.get("model")).partition(" [")[0].strip()
    found = next((control for control in known if name in (control, control.rpartition("/")[2])), None)
    if found is None:
        raise UnknownNameError(f"unknown ControlNet {name[:100]!r}; there are: {', '.join(known) or 'none'}.")
    picture = unit.get("image") or unit.get("input_image")
    if isinstance(picture, dict):
        picture = picture.get("image")
    if picture:
        content = from_base64(str(picture), "the picture of a ControlNet")
        require_picture(content, "the picture of a ControlNet", limits)
        image = content_hash(content)
        pictures[image] = content
    if image is None:
        raise UnprocessableError(f"the ControlNet {found} has no picture; send one as base64.")
    module = str(unit.get("module") or "none").lower()
    # Its first word: the extension has several modules of a kind, such as depth_midas.
    preprocessor = module.partition("_")[0]
    if preprocessor not in PREPROCESSORS:
        raise UnprocessableError(f"unknown module {module[:40]!r}; valid modules: {', '.join(PREPROCESSORS)}.")
    return ControlUnit(
        found,
        image,
        weight=_number(unit.get("weight"), 1.0),
        start=_number(unit.get("guidance_start"), 0.0),
        end=_number(unit.get("guidance_end"), 1.0),
        preprocessor=preprocessor,
    )


def _is_enabled(unit: dict[str, Any]) -> bool:
    model = unit.get("model")
    return unit.get("enabled", True) is not False and model is not None and str(model).strip().lower() not in NO_SCRIPT


def _number(value: object, default: float) -> float:
    try:
        return default if value is None else float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return default
