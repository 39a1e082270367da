"""What a client is told of its request: values that were brought inside their bounds, and fields that do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from seesr.notes import Notes
from seesr.options import OptionModel
from seesr.studio.api.sdapi.fields import Extras, Generation

NO_SCRIPT = ("", "none")
SAME: Final = ("", "none", "use same sampler", "use same scheduler", "use same checkpoint", "use same choices")
"""Of a name: that nothing else is asked for."""
UNUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "seed_resize_from_h": ((-1, 0), "seeds are not resized"),
    "seed_resize_from_w": ((-1, 0), "seeds are not resized"),
    "restore_faces": ((False,), "faces are not restored"),
    "tiling": ((False,), "pictures that tile are not made"),
    "refiner_checkpoint": (SAME, "no refiner is used"),
    "disable_extra_networks": ((False,), "the LoRAs of the prompt are used"),
    "hr_checkpoint_name": (SAME, "the second pass has the same checkpoint"),
    "hr_sampler_name": (SAME, "the second pass has the same sampler"),
    "hr_scheduler": (SAME, "the second pass has the same schedule"),
    "hr_prompt": (SAME, "the second pass has the same prompt"),
    "hr_negative_prompt": (SAME, "the second pass has the same negative prompt"),
    "hr_cfg": ((0.0, 1.0), "the second pass has the same guidance"),
    "initial_noise_multiplier": ((1.0,), "the noise is not multiplied"),
    "gfpgan_visibility": ((0.0,), "faces are not restored"),
    "codeformer_visibility": ((0.0,), "faces are not restored"),
    "upscaler_2": (SAME, "one upscaler is used"),
}
"""Fields of which nothing is done: the values that ask for nothing, and what is noted of others."""


def note_unused(body: Generation | Extras, notes: Notes) -> None:
    """Notes what was asked for and is not done."""
    for name, (neutral, sentence) in UNUSED.items():
        if name in body.model_fields_set:
            value = getattr(body, name)
            if (value.strip().lower() if isinstance(value, str) else value) not in neutral:
                notes.add(sentence)


def within(model: type[OptionModel], name: str, value: float, sent: str, notes: Notes) -> Any:
    """A value inside the bounds of an option, with a note where it was not."""
    low, high = model.bounds(name)
    inside = value if low is None or high is None else min(high, max(low, value))
    if inside != value:
        notes.add(f"{sent} is {inside:g}, as it may be {low:g} to {high:g}")
    return int(inside) if isinstance(value, int) else inside
