"""The files that make the container: cog.yaml, requirements, the schema, and predict.py's inputs against options.py."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from seesr import Options
from seesr.options import PRESETS, SaveOptions

ROOT = Path(__file__).parents[1]
RENAMED = {
    "num_inference_steps": (Options, "steps"),
    "output_format": (SaveOptions, "format"),
    "output_quality": (SaveOptions, "quality"),
    "keep_metadata": (SaveOptions, "metadata"),
}
OTHER_DEFAULT = {"num_inference_steps", "output_format", "keep_metadata"}
"""None where a preset may decide; a server has no file name that gives a format, and other people's pictures."""
OTHER_HELP = {"output_format"}
NOT_OPTIONS = {"image", "preset"}
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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = (ROOT / configuration["build"]["python_requirements"]).read_text().split("\n")
    assert sorted(line for line in listed if line) == sorted(project["dependencies"])


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
        assert tuple(field.choices or ()) == model.choices(option), name
    (longest,) = [item.max_length for item in Options.model_fields["prompt"].metadata if hasattr(item, "max_length")]
    assert inputs["prompt"].max_length == longest
    left_out = {(Options, name) for name in Options.model_fields} | {
        (SaveOptions, name) for name in SaveOptions.model_fields
    }
    assert left_out - described == {(Options, "max_side")}


def test_the_schema_is_current() -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "make_schema.py", "--check"], check=True)
    schema = json.loads((ROOT / ".cog" / "openapi_schema.json").read_text())
    assert schema["components"]["schemas"]["Input"]["required"] == ["image"]
