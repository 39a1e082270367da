"""A user's options: those of A1111's hundreds that count here, of which some hold for a single job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ValidationError

from seesr.errors import OptionError
from seesr.options import SaveOptions
from seesr.studio.api.model_lists import Known
from seesr.studio.api.sdapi.fields import Body, Flag, Text, Whole

CHECKPOINT = "sd_model_checkpoint"
FORMATS = ("png", "jpg", "jpeg", "webp", "avif", "jxl")


class UserOptions(Body):
    """The options by A1111's names; an unknown one is dropped."""

    samples_format: Text = "png"
    """Format of the pictures: png, jpg, webp, avif or jxl."""
    jpeg_quality: Whole = 95
    """Quality of all formats that lose something, 1 to 100."""
    sd_model_checkpoint: Text = ""
    """By any of its names; "" is the default one."""
    sd_vae: Text = "Automatic"
    CLIP_stop_at_last_layers: Whole = 1
    return_grid: Flag = True
    """Whether a grid is answered where one is asked for."""
    face_restoration_model: Text = "CodeFormer"
    """Kept for clients; faces are not restored."""
    send_seed: Flag = True
    """Likewise kept."""
    send_size: Flag = True
    """Likewise."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Options by A1111's names, as a client sends them or as they were kept.

        Raises:
            OptionError: one that is known has a value that it cannot have.
        """
        try:
            options = cls.model_validate(values)
        except ValidationError as error:
            raise OptionError(
                f"the option {error.errors()[0]['loc'][0]} cannot have this value; read it to see one."
            ) from None
        options.saving()
        return options

    def saving(self) -> SaveOptions:
        """How the pictures of a job are written.

        Raises:
            OptionError: the format is unknown, or the quality is outside its limits.
        """
        name = self.samples_format.strip().lower()
        if name not in FORMATS:
            raise OptionError(f"samples_format is {name[:20]!r}; valid formats: {', '.join(FORMATS)}.")
        return SaveOptions(format=name, quality=self.jpeg_quality)  # pyright: ignore[reportArgumentType] # is checked

    def changed(self, values: Mapping[str, Any]) -> Self:
        """These options with others in their place; raises as `of`."""
        known = {name: value for name, value in values.items() if name in type(self).model_fields}
        return self.of(self.model_dump(exclude_unset=True) | known)

    def answer(self, known: Known) -> dict[str, Any]:
        """All options as a client reads them; what it sends back of it changes nothing."""
        names = [entry for entry in known.checkpoints if entry.is_called(self.sd_model_checkpoint)]
        checkpoint = (names or list(known.checkpoints))[0]
        return self.model_dump() | {CHECKPOINT: checkpoint.title, "sd_checkpoint_hash": checkpoint.hash}
