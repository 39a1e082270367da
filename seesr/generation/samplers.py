"""Samplers and noise schedules by the names that users know, as schedulers of diffusers.

A scheduler is stateful, and options given to `from_config` stay in its config, so each job makes its own from the
checkpoint's original config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seesr.errors import OptionError

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

AUTOMATIC = "Automatic"
SCHEDULES: dict[str, dict[str, Any]] = {
    AUTOMATIC: {},
    "Karras": {"use_karras_sigmas": True},
    "Exponential": {"use_exponential_sigmas": True},
    "Beta": {"use_beta_sigmas": True},
    "Uniform": {"timestep_spacing": "linspace"},
    "SGM Uniform": {"timestep_spacing": "trailing"},
    "Simple": {"timestep_spacing": "leading"},
}
"""Noise schedules, and the scheduler options that select them; Automatic is that of the checkpoint's config."""
DISTILLATION_STEPS = 50
"""Of the sampler that LCM's and TCD's networks were distilled from."""
SIGMA_FLAGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


@dataclass(frozen=True)
class Sampler:
    """A sampler: the class in diffusers, and what selects it there."""

    name: str
    scheduler: str
    options: dict[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    is_random: bool = False
    """Whether it adds noise at each step."""
    one_by_one: bool = False
    """Whether its noise depends on the batch, so that pictures are made one by one."""


SAMPLERS = (
    Sampler("Euler a", "EulerAncestralDiscreteScheduler", aliases=("k_euler_a", "euler_ancestral"), is_random=True),
    Sampler("Euler", "EulerDiscreteScheduler", aliases=("k_euler",)),
    Sampler("LMS", "LMSDiscreteScheduler", aliases=("k_lms",)),
    Sampler("Heun", "HeunDiscreteScheduler", aliases=("k_heun",)),
    Sampler("DPM2", "KDPM2DiscreteScheduler", aliases=("k_dpm_2",)),
    Sampler("DPM2 a", "KDPM2AncestralDiscreteScheduler", aliases=("k_dpm_2_a",), is_random=True),
    Sampler("DPM++ 2M", "DPMSolverMultistepScheduler", aliases=("k_dpmpp_2m",)),
    Sampler("DPM++ SDE", "DPMSolverSDEScheduler", aliases=("k_dpmpp_sde",), is_random=True, one_by_one=True),
    Sampler(
        "DPM++ 2M SDE",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
        ("k_dpmpp_2m_sde",),
        is_random=True,
    ),
    Sampler(
        "DPM++ 3M SDE",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        ("k_dpmpp_3m_sde",),
        is_random=True,
    ),
    Sampler("DDIM", "DDIMScheduler"),
    Sampler("PNDM", "PNDMScheduler", {"skip_prk_steps": True}, aliases=("PLMS",)),
    Sampler("UniPC", "UniPCMultistepScheduler"),
    Sampler("DEIS", "DEISMultistepScheduler"),
    Sampler("LCM", "LCMScheduler", is_random=True),
    Sampler("TCD", "TCDScheduler", is_random=True),
    Sampler("DDPM", "DDPMScheduler", is_random=True),
)


def parse_sampler(name: str, schedule: str = AUTOMATIC) -> tuple[Sampler, str]:
    """The sampler and the schedule of these names; a combined name such as `DPM++ 2M Karras` names both.

    Raises:
        OptionError: the sampler or the schedule is unknown.
    """
    by_name = {alias.lower(): sampler for sampler in SAMPLERS for alias in (sampler.name, *sampler.aliases)}
    schedules = {known.lower(): known for known in SCHEDULES}
    words = name.strip().lower()
    if words not in by_name:
        first, _, last = words.rpartition(" ")
        if first in by_name and last in schedules:
            words, schedule = first, schedules[last] if schedule.lower() == AUTOMATIC.lower() else schedule
    if words not in by_name:
        raise OptionError(f"unknown sampler {name!r}; valid samplers: {', '.join(sampler.name for sampler in SAMPLERS)}.")
    if schedule.lower() not in schedules:
        raise OptionError(f"unknown schedule {schedule!r}; valid schedules: {', '.join(SCHEDULES)}.")
    return by_name[words], schedules[schedule.lower()]


def supports(sampler: Sampler, schedule: str) -> bool:
    """Whether the sampler can use the schedule."""
    return SCHEDULES[schedule].keys() <= _parameters(sampler)


def make_scheduler(
    original: Mapping[str, Any], sampler: Sampler, schedule: str, seed: int, steps: int = 1
) -> SchedulerMixin:
    """A new scheduler from a checkpoint's original config for so many steps.

    Args:
        seed: for samplers that draw their noise themselves.
    """
    # What another class's config says of sigmas would be kept beside what is asked for.
    parameters = _parameters(sampler)
    options = {key: value for key, value in original.items() if not key.startswith("_") and key not in SIGMA_FLAGS}
    options = {key: value for key, value in options.items() if key in parameters} | sampler.options | SCHEDULES[schedule]
    if "original_inference_steps" in parameters:  # LCM and TCD refuse more steps than these
        options["original_inference_steps"] = max(options.get("original_inference_steps", DISTILLATION_STEPS), steps)
    if "noise_sampler_seed" in parameters:
        options["noise_sampler_seed"] = seed
    return _scheduler_class(sampler)(**options)


def _scheduler_class(sampler: Sampler) -> Any:
    import diffusers  # here: it takes seconds

    return getattr(diffusers, sampler.scheduler)


def _parameters(sampler: Sampler) -> set[str]:
    import inspect

    return set(inspect.signature(_scheduler_class(sampler).__init__).parameters) - {"self"}
