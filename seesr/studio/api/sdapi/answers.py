"""From jobs and their pictures to the answers of A1111's API."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

from seesr.generation.infotext import Infotext
from seesr.generation.like import SIZE
from seesr.jobs import GenerationRequest, JobEvent
from seesr.studio.api.encoding import to_base64
from seesr.studio.api.sdapi.fields import Generation, ImageToImage
from seesr.studio.api.sdapi.pictures import grid, infotext_of
from seesr.studio.api.sdapi.translate import Translated
from seesr.studio.errors import JobFailedError
from seesr.studio.records import Job, PictureRecord
from seesr.version import __version__

TIMESTAMP = "%Y%m%d%H%M%S"
DEFAULTS = {"Clip skip": "1", "Schedule type": "Automatic", "RNG": "GPU", "Hires upscaler": "Latent"}
"""What A1111 adds to the parameters of an infotext that does not name them."""

Files = Sequence[tuple[PictureRecord, bytes]]


def require_success(job: Job) -> None:
    """Raises JobFailedError, with the job's own sentence, unless it is done or was cancelled."""
    if job.state in ("failed", "interrupted"):
        raise JobFailedError(job.error or "the studio was stopped while this job ran; send it again.")


def generated(body: Generation, translated: Translated, job: Job, files: Files) -> dict[str, Any]:
    """The answer of txt2img and img2img: `images`, `parameters`, and `info` as a text of JSON.

    Of a job that was cancelled those pictures that were finished.
    """
    contents = [content for _, content in files]
    sheet = grid(contents) if translated.is_grid_asked and len(contents) > 1 else None
    images = ([] if sheet is None else [sheet]) + contents
    info = _info(body, translated, job, files, has_grid=sheet is not None)
    hidden = () if isinstance(body, ImageToImage) and body.include_init_images else ("init_images", "mask")
    parameters = {name: None if name in hidden else value for name, value in body.model_dump().items()}
    # Of what clients put into these, only the names that are known here are theirs to see again.
    parameters |= {"alwayson_scripts": {}, "script_args": [], "override_settings": {}}
    return {
        "images": [to_base64(image) for image in images] if body.send_images else [],
        "parameters": parameters,
        "info": json.dumps(info),
    }


def _info(body: Generation, translated: Translated, job: Job, files: Files, has_grid: bool) -> dict[str, Any]:
    request, checkpoint = job.request, translated.checkpoint
    assert isinstance(request, GenerationRequest)
    options, settings = request.options, [picture.settings for picture, _ in files]
    first = settings[0] if settings else {}
    infotexts = [infotext_of(content) for _, content in files]
    prompts = [each.get("prompt", options.prompt) for each in settings]
    negatives = [each.get("negative_prompt", options.negative_prompt) for each in settings]
    seeds = [each.get("seed", -1) for each in settings]
    subseeds = [each.get("variation_seed") or -1 for each in settings]
    notes = list(dict.fromkeys([*translated.notes, *job.notes]))
    is_masked = request.task == "inpainting"
    return {
        "prompt": prompts[0] if prompts else options.prompt,
        "all_prompts": prompts,
        "negative_prompt": negatives[0] if negatives else options.negative_prompt,
        "all_negative_prompts": negatives,
        "seed": seeds[0] if seeds else -1,
        "all_seeds": seeds,
        "subseed": subseeds[0] if subseeds else -1,
        "all_subseeds": subseeds,
        "subseed_strength": options.variation_strength,
        "width": options.width or (files[0][0].width if files else body.width),
        "height": options.height or (files[0][0].height if files else body.height),
        "sampler_name": first.get("sampler", options.sampler or ""),
        "cfg_scale": first.get("guidance_scale", body.cfg_scale),
        "steps": first.get("steps", body.steps),
        "batch_size": options.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": checkpoint.name,
        "sd_model_hash": checkpoint.hash,
        "sd_vae_name": request.vae,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": None if request.task == "text to image" else options.strength,
        "extra_generation_params": {"Notes": "; ".join(notes)} if notes else {},
        "index_of_first_image": int(has_grid),
        "infotexts": ([infotexts[0]] if has_grid else []) + infotexts,
        "styles": list(options.styles),
        "job_timestamp": f"{job.created:{TIMESTAMP}}",
        "clip_skip": options.clip_skip,
        "is_using_inpainting_conditioning": is_masked,
        "version": f"SeeSR {__version__}",
    }


def progress(job: Job | None, event: JobEvent | None, preview: bytes | None) -> dict[str, Any]:
    """The answer of progress, of the job that a user waits for; all is 0 where there is none."""
    count, done, eta, step, steps, number = 0, 0.0, 0.0, 0, 0, 0
    if job is not None:
        options = job.request.options if isinstance(job.request, GenerationRequest) else None
        count, done = options.batch_count if options else 1, 0.01
        data = event.data if event is not None else {}
        picture, pictures = data.get("picture") or 0, max(1, data.get("pictures") or 1)
        number = picture // options.batch_size if options else 0
        if data.get("stage") == "denoise":
            step, steps = data.get("step") or 0, data.get("steps") or 0
        share = step / steps if steps else 0.0
        done, eta = min(1.0, max(done, (picture + share) / pictures)), data.get("eta") or 0.0
    state = {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": f"task({job.id})" if job else "",
        "job_count": count,
        "job_timestamp": f"{job.created:{TIMESTAMP}}" if job else "0",
        "job_no": number,
        "sampling_step": step,
        "sampling_steps": steps,
    }
    image = to_base64(preview) if preview else None
    text = None if job is None or job.state == "running" else "waits in the queue"
    return {"progress": done, "eta_relative": eta, "state": state, "current_image": image, "textinfo": text}


def png_info(infotext: str | None, texts: dict[str, str]) -> dict[str, Any]:
    """The answer of png-info: the infotext, the other texts of the file, and the infotext's parameters by A1111's keys."""
    if not infotext:
        return {"info": "", "items": texts, "parameters": {}}
    parsed = Infotext.parse(infotext)
    parameters: dict[str, Any] = {"Prompt": parsed.prompt, "Negative prompt": parsed.negative_prompt}
    for key, value in parsed.parameters.items():
        if size := SIZE.fullmatch(value):
            parameters |= {f"{key}-1": size[1], f"{key}-2": size[2]}
        else:
            parameters[key] = value
    return {"info": infotext, "items": texts, "parameters": DEFAULTS | parameters}


def html_info(notes: Sequence[str]) -> str:
    """Notes for a page."""
    return "".join(f"<p>{html.escape(note)}</p>" for note in notes)
