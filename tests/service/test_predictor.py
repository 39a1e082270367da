"""The files that make the container: cog.yaml, requirements, the schema, and predict.py's inputs against options.py."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from helpers import ROOT
from packaging.requirements import Requirement
from PIL import Image

from seesr import Options, OutputError, Result
from seesr.images.encoded import EncodedImage
from seesr.images.frames import FrameSequence
from seesr.images.sizes import Sizes
from seesr.machine.worker_thread import WorkerThread
from seesr.options import PRESETS, Limits, ReadOptions, SaveOptions
from seesr.result import UpscaledFrames, UpscaleResult

RENAMED = {
    "num_inference_steps": (Options, "steps"),
    "frames": (ReadOptions, "frames"),
    "output_format": (SaveOptions, "format"),
    "output_quality": (SaveOptions, "quality"),
    "keep_metadata": (SaveOptions, "metadata"),
}
OTHER_DEFAULT = {"num_inference_steps", "output_format", "keep_metadata"}
"""None where a preset may decide; a server has no file name that gives a format, and other people's pictures."""
OTHER_HELP = {"output_format"}
NOT_IN_SERVICE = {"output_format": {"jxl"}}
"""Values that need a package which the container does not have."""
NOT_OPTIONS = {"image", "preset"}
OTHERS: dict[str, Any] = {
    **{"scale": 2.5, "prompt": "fur", "num_inference_steps": 3, "preset": "memory", "tags": False},
    **{"conditioning_scale": 0.5, "edges": 1.5, "clean": 0.5, "color_fix": "adain", "sharpen": 0.25, "seed": 7},
    **{"kds": True, "kds_particles": 4, "kds_bandwidth": 0.75, "kds_patch": 3},
    **{"tile": 48, "tile_overlap": 8, "tile_tags": True, "vae_tile": 32},
    **{"bits": 16, "frames": "all", "output_format": "webp", "output_quality": 80, "keep_metadata": True},
}
"""A value other than the default of every input but the picture."""
BUILD_KEYS = {"cuda", "cudnn", "gpu", "python_requirements", "python_version", "run", "system_packages", "sdk_version"}
TOP_KEYS = {"build", "concurrency", "environment", "image", "predict", "run", "train"}
"""What Cog 0.23's reference knows, without what it calls deprecated."""


@pytest.fixture(scope="module")
def configuration() -> dict:
    return yaml.safe_load((ROOT / "cog.yaml").read_text())


def test_cog_yaml_keeps_to_the_reference(configuration: dict) -> None:
    assert configuration.keys() <= TOP_KEYS
    build = configuration["build"]
    assert build.keys() <= BUILD_KEYS
    assert isinstance(build["cuda"], str)
    assert build["gpu"] is True
    assert tuple(map(int, build["python_version"].split("."))) >= (3, 11)
    assert (ROOT / build["python_requirements"]).is_file()
    assert configuration["concurrency"] == {"max": 1}
    assert all("=" in entry for entry in configuration["environment"])
    file, _, name = configuration["predict"].partition(":")
    classes = [node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.ClassDef)]
    assert name in classes


def test_cog_installs_what_pyproject_pins(configuration: dict) -> None:
    # Cog copies this one file into the container, so it can't refer to the constraints.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = set((ROOT / configuration["build"]["python_requirements"]).read_text().splitlines())
    assert pins <= set((ROOT / "scripts" / "constraints.txt").read_text().splitlines())
    assert {pin.split("==")[0] for pin in pins} == {Requirement(line).name for line in project["dependencies"]}


def test_what_is_not_for_the_container_stays_out() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "tests", "docs"} <= set(ignored)
    assert not {"weights", "seesr", "scripts", "predict.py"} & set(ignored)


def test_inputs_are_described_as_in_options() -> None:
    # Cog reads these calls from the source when it builds, so predict.py must hold literals.
    sys.path.insert(0, str(ROOT))
    from predict import Predictor

    inputs = {name: item.default for name, item in inspect.signature(Predictor.predict).parameters.items() if name != "self"}
    assert inputs["preset"].choices == list(PRESETS)
    described = set()
    for name in inputs.keys() - NOT_OPTIONS:
        model, option = RENAMED.get(name, (Options, name))
        described.add((model, option))
        field = inputs[name]
        if name not in OTHER_HELP:
            assert field.description == model.describe(option), name
        if name not in OTHER_DEFAULT:
            assert field.default == model.model_fields[option].default, name
        assert (field.ge, field.le) == model.bounds(option), name
        left_out = NOT_IN_SERVICE.get(name, set())
        assert tuple(field.choices or ()) == tuple(one for one in model.choices(option) if one not in left_out), name
    (longest,) = [item.max_length for item in Options.model_fields["prompt"].metadata if hasattr(item, "max_length")]
    assert inputs["prompt"].max_length == longest
    left_out = {(model, name) for model in (Options, ReadOptions, SaveOptions) for name in model.model_fields}
    assert left_out - described == {(Options, "max_side")}


class Asked:
    """Stands for an Upscaler: remembers what it is asked for, and gives an empty picture."""

    options: Options
    error: Exception | None = None
    engine = SimpleNamespace(limits=Limits())

    def upscale(self, source: EncodedImage, options: Options, progress: object) -> UpscaleResult:
        assert source.name == "image"
        if self.error is not None:
            raise self.error
        self.options, size = options, (4, 4)
        image = Image.new("RGB", size)
        pictures = {"image": image, "input": image, "sizes": Sizes(size, size, size, size, 0), "options": options}
        words = {"prompt": "", "weights": "tiny", "dtype": "float32", "rung": "whole", "vae": "whole"}
        return UpscaleResult(**pictures, **words, seed=1, tags=[], seconds={}, notes=[], attempts=[], peak_memory=0)

    def upscale_frames(self, source: EncodedImage, options: Options, progress: object) -> UpscaledFrames:
        results = (self.upscale(source, options, progress) for _ in range(2))
        return UpscaledFrames(FrameSequence("animation", range(2)), results)


@pytest.fixture
def predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The service's, without models."""
    monkeypatch.syspath_prepend(str(ROOT))
    service = importlib.import_module("predict")
    monkeypatch.setattr(service, "trim_heap", lambda: None)
    made = service.Predictor()
    made.folder, made.upscaler, made.thread = tmp_path.resolve(), Asked(), WorkerThread()
    return made


def predict(predictor: Any, **given: object) -> None:
    """A request with these inputs, the others as a client gets them who does not name them."""
    photo = predictor.folder / "photo.png"
    photo.touch()
    defaults = {name: item.default.default for name, item in inspect.signature(predictor.predict).parameters.items()}
    predictor.predict(**defaults | {"image": photo} | given)


@pytest.mark.parametrize("name", OTHERS)
def test_each_input_becomes_the_option_of_its_name(predictor: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    saved = list[SaveOptions]()
    monkeypatch.setattr(Result, "save", lambda self, path, options, name: saved.append(options))
    if name == "frames":
        monkeypatch.setattr(UpscaledFrames, "save", lambda self, path, options, name: saved.append(options) or next(self))
    predict(predictor, **{name: OTHERS[name]})
    model, option = RENAMED.get(name, (Options, name))
    wanted: dict[type, dict] = {Options: {}, ReadOptions: {}, SaveOptions: {"format": "png", "metadata": False}}
    wanted[model] |= {option: OTHERS[name]}
    assert predictor.upscaler.options == Options.make(**wanted[Options])
    assert saved == [SaveOptions(**wanted[SaveOptions])]


def test_all_frames_come_out_as_an_animation(predictor: Any, capsys: pytest.CaptureFixture[str]) -> None:
    predict(predictor, frames="all", output_format="gif")
    (path,) = (predictor.folder / "result").iterdir()
    assert (path.name, Image.open(path).n_frames) == ("upscaled.gif", 2)
    assert "frames: 2" in capsys.readouterr().out.splitlines()
    with pytest.raises(OutputError, match=r"the result\.gif: GIF is written for animations only"):
        predict(predictor, output_format="gif")
    assert not (predictor.folder / "result").exists()


def test_no_input_is_left_out_of_these(predictor: Any) -> None:
    inputs = inspect.signature(predictor.predict).parameters
    assert inputs.keys() == {"image", *OTHERS}
    assert all(inputs[name].default.default != value for name, value in OTHERS.items())


def test_a_client_is_not_told_where_files_lie_unless_it_is_debugging(
    predictor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor.upscaler.error = RuntimeError("/secret/path")
    with pytest.raises(RuntimeError, match=r"^internal error \(RuntimeError\); please report it\.$"):
        predict(predictor)
    monkeypatch.setenv("SEESR_DEBUG", "1")
    with pytest.raises(RuntimeError, match=r"^/secret/path$"):
        predict(predictor)


def test_of_the_inputs_only_the_picture_must_be_given() -> None:
    schema = json.loads((ROOT / ".cog" / "openapi_schema.json").read_text())
    assert schema["components"]["schemas"]["Input"]["required"] == ["image"]
