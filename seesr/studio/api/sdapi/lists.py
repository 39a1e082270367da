"""Routes that list what there is, by A1111's names and in its forms; never a folder of the server's."""

from __future__ import annotations

from typing import Any

import psutil
from fastapi import APIRouter

from seesr.generation.model_file import EMBEDDING_KEY, ModelFile
from seesr.generation.samplers import SAMPLERS, SCHEDULES
from seesr.jobs import UPSCALE_METHODS
from seesr.studio.api.dependencies import AnyModels, AnyUser
from seesr.studio.api.sdapi.errors import SdapiRoute

router = APIRouter(tags=["sdapi"], route_class=SdapiRoute)
LATENT_MODES = (
    "Latent",
    "Latent (antialiased)",
    "Latent (bicubic)",
    "Latent (bicubic antialiased)",
    "Latent (nearest)",
    "Latent (nearest-exact)",
)
"""A1111's names, all of which are the same here."""
CONTROLNET_SCRIPTS: tuple[str, ...] = ("controlnet", "controlnet m2m")
"""By which clients see that there are ControlNets."""


@router.get("/sd-models")
def sd_models(models: AnyModels, user: AnyUser) -> list[dict[str, Any]]:
    """The checkpoints; the first one is that of jobs that name none."""
    del user
    return [
        {
            "title": entry.title,
            "model_name": entry.name,
            "hash": entry.hash or None,
            "sha256": None,
            "filename": entry.file_name,
            "config": None,
        }
        for entry in models.checkpoints()
    ]


@router.get("/sd-vae")
def sd_vae(models: AnyModels, user: AnyUser) -> list[dict[str, str]]:
    """The VAEs."""
    del user
    return [{"model_name": name, "filename": file} for name, file in models.vaes().items()]


@router.get("/samplers")
def samplers(user: AnyUser) -> list[dict[str, Any]]:
    """The samplers."""
    del user
    return [{"name": sampler.name, "aliases": list(sampler.aliases), "options": {}} for sampler in SAMPLERS]


@router.get("/schedulers")
def schedulers(user: AnyUser) -> list[dict[str, Any]]:
    """The noise schedules."""
    del user
    return [
        {
            "name": name.lower().replace(" ", "_"),
            "label": name,
            "aliases": None,
            "default_rho": -1.0,
            "need_inner_model": False,
        }
        for name in SCHEDULES
    ]


@router.get("/upscalers")
def upscalers(user: AnyUser) -> list[dict[str, Any]]:
    """None first, as clients expect, then those that are."""
    del user
    return [
        {"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4}
        for name in ("None", "Lanczos", "Nearest", *(set(UPSCALE_METHODS) - {"Lanczos", "Nearest"}))
    ]


@router.get("/latent-upscale-modes")
def latent_upscale_modes(user: AnyUser) -> list[dict[str, str]]:
    """How latents are enlarged before the second pass."""
    del user
    return [{"name": name} for name in LATENT_MODES]


@router.get("/loras")
def loras(models: AnyModels, user: AnyUser) -> list[dict[str, Any]]:
    """The LoRAs."""
    del user
    return [
        {
            "name": lora.name,
            "alias": lora.header.metadata.get("ss_output_name") or lora.name,
            "path": f"{lora.name}.safetensors",
            "metadata": dict(lora.header.metadata),
        }
        for lora in models.loras()
    ]


@router.get("/embeddings")
def embeddings(models: AnyModels, user: AnyUser) -> dict[str, Any]:
    """The embeddings; `skipped` is empty, as it depends on the checkpoint of a job which of them fit."""
    del user
    return {"loaded": {file.name: _embedding(file) for file in models.embeddings()}, "skipped": {}}


@router.get("/prompt-styles")
def prompt_styles(models: AnyModels, user: AnyUser) -> list[dict[str, str]]:
    """The styles."""
    del user
    styles = models.styles()
    return [{"name": name, "prompt": prompt, "negative_prompt": negative} for name, (prompt, negative) in styles.items()]


@router.get("/hypernetworks")
@router.get("/face-restorers")
@router.get("/realesrgan-models")
@router.get("/extensions")
def nothing(user: AnyUser) -> list[dict[str, Any]]:
    """What there is nothing of."""
    del user
    return []


@router.get("/scripts")
def scripts(models: AnyModels, user: AnyUser) -> dict[str, list[str]]:
    """ControlNet where there are ControlNets."""
    del user
    names = [*CONTROLNET_SCRIPTS] if models.controlnets() else []
    return {"txt2img": names, "img2img": names}


@router.get("/script-info")
def script_info(models: AnyModels, user: AnyUser) -> list[dict[str, Any]]:
    """The same, with no arguments described: those of ControlNet are read by name."""
    del user
    if not models.controlnets():
        return []
    return [
        {"name": "controlnet", "is_alwayson": True, "is_img2img": is_img2img, "args": []} for is_img2img in (False, True)
    ]


@router.get("/cmd-flags")
def cmd_flags(user: AnyUser) -> dict[str, bool]:
    """That there is an API; nothing of how the studio was started."""
    del user
    return {"api": True}


@router.get("/memory")
def memory(user: AnyUser) -> dict[str, Any]:
    """RAM in bytes; of a GPU nothing is known here, as the models are in another process."""
    del user
    ram = psutil.virtual_memory()
    return {
        "ram": {"free": ram.available, "used": ram.total - ram.available, "total": ram.total},
        "cuda": {"error": "the models are in another process"},
    }


@router.post("/refresh-checkpoints")
@router.post("/refresh-loras")
@router.post("/refresh-vae")
@router.post("/refresh-embeddings")
@router.post("/unload-checkpoint")
@router.post("/reload-checkpoint")
def done_anyway(user: AnyUser) -> dict[str, Any]:
    """Folders are read whenever a list is asked for, and models are let go of as memory asks."""
    del user
    return {}


def _embedding(file: ModelFile) -> dict[str, Any]:
    shapes = file.header.shapes
    shape = shapes.get(EMBEDDING_KEY) or next(iter(shapes.values()), ())
    vectors = shape[0] if len(shape) > 1 else 1
    return {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": file.prompt_width, "vectors": vectors}
