"""The benchmark on the embedded model: what it times, counts, leaves out and refuses."""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from helpers import Outcome, Run
from torch import nn

from scripts.benchmark import machine
from scripts.benchmark.__main__ import main
from scripts.benchmark.contenders import Contender, contend
from scripts.benchmark.measurement import Measurement
from scripts.benchmark.ours import Ours
from scripts.benchmark.published import plain_attention
from scripts.benchmark.timing import count, counting, measure
from seesr import Options, Upscaler
from seesr.cli.app import app
from seesr.images.sizes import Sizes, plan_sizes
from seesr.result import Result
from seesr.stages import Stages
from seesr.weights.config import read_config
from seesr.weights.manifest import beside_package

OURS = ["read", "clean", "resize", "tags", "prompt", "encode", "denoise", "vae_decode", "colour", "finish", "rest"]
NETWORKS = ["tags", "prompt", "encode", "denoise", "vae_decode"]
WITHOUT_OPERATIONS = {"read", "resize", "finish", "rest"}
CPU = torch.device("cpu")
SMALL = ("--weights", beside_package("tiny"), "--device", "cpu", "--dtype", "float32", "--repeat", 1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what takes long and says nothing of a picture."""
    monkeypatch.setattr("scripts.benchmark.report.startup_seconds", lambda: 1.0)
    monkeypatch.setattr(machine, "MATMUL_SIDE", 128)


def small(upscaler: Upscaler) -> Sizes:
    return plan_sizes((32, 32), 4.0, None, upscaler.networks.size_requirements, upscaler.engine.limits)


def new_measurement() -> Measurement:
    return Measurement("", torch.float32)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, run_main: Run) -> Run:
    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(app, "registered_commands", [*app.registered_commands])
        return run_main(main, *arguments)

    return run


def operations_of_the_text_encoder() -> int:
    """By hand: each layer's six matrices, and attention's two products."""
    config = read_config(beside_package("tiny") / "sd-turbo" / "text_encoder" / "config.json")
    tokens, width, inner = config["max_position_embeddings"], config["hidden_size"], config["intermediate_size"]
    matrices, attention = 2 * tokens * (4 * width**2 + 2 * width * inner), 2 * 2 * tokens**2 * width
    return config["num_hidden_layers"] * (matrices + attention)


def test_start_up_is_timed_in_a_process_of_its_own() -> None:
    assert machine.startup_seconds(runs=1) > 0.1


@pytest.mark.parametrize("baseline", [True, False])
def test_every_stage_is_timed_and_its_operations_are_counted(run: Run, baseline: bool) -> None:
    outcome = run(*SMALL, "--size", "32x32", "--json", "--baseline" if baseline else "--no-baseline")
    assert (outcome.code, outcome.err) == (0, "")
    record = json.loads(outcome.out)
    measured, peak = record["sizes"]["32x32"], record["matmul_gflop_s"]["float32"]
    assert (record["startup_seconds"], record["threads"]) == (1.0, torch.get_num_threads())
    assert record["loading_seconds"] > 0
    assert record["processor"]
    assert {name: [*one["stages"]] for name, one in measured.items()} == (
        {"seesr": OURS, "published": NETWORKS} if baseline else {"seesr": OURS}
    )
    for one in measured.values():
        stages = one["stages"]
        assert {name for name, stage in stages.items() if not stage.get("flop")} == WITHOUT_OPERATIONS & {*stages}
        assert stages["prompt"]["flop"] == operations_of_the_text_encoder()
        assert one["flop"] == sum(stage.get("flop", 0) for stage in stages.values())
        assert one["seconds"] == pytest.approx(sum(stage["seconds"] for stage in stages.values()))
        for stage in (stage for name, stage in stages.items() if name != "rest"):
            assert stage["gflop_s"] == pytest.approx(stage["flop"] / stage["seconds"] / 1e9)
            assert stage["share"] == pytest.approx(stage["gflop_s"] / peak)
        assert one["times_ours"] == pytest.approx(one["seconds"] / measured["seesr"]["seconds"])
        assert one["median_ratio"] == pytest.approx(one["rounds"][0] / measured["seesr"]["rounds"][0])
        assert one["peak_bytes"] is None or one["peak_bytes"] > 1e8
    if baseline:
        for stage in ("tags", "prompt"):
            assert measured["published"]["stages"][stage]["flop"] == measured["seesr"]["stages"][stage]["flop"]


def test_a_size_that_is_worked_on_larger_has_no_baseline(run: Run) -> None:
    outcome = run(*SMALL, "--size", "16x16", "--dtype", "bfloat16")
    assert outcome.code == 0
    reason = "is left out: a 64x64 result is below the models' smallest side, so seesr works on 128x128."
    assert f"published in bfloat16 (bfloat16) {reason}\npublished (float32) {reason}\n" in outcome.out
    for row in ("times ours", "median ratio"):
        assert cells(outcome.out, row) == ["1.00", "", "", "", "", ""]


@pytest.mark.parametrize(
    ("which", "name", "left"),
    [("published.Published", "published", [True, False]), ("command.Ours", "seesr", [False, True])],
)
def test_what_is_out_of_memory_leaves_the_rest(
    run: Run, monkeypatch: pytest.MonkeyPatch, which: str, name: str, left: list[bool]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"scripts.benchmark.{which}", fail)
    error: Exception = torch.OutOfMemoryError("CUDA out of memory.")
    outcome = run(*SMALL, "--size", "32x32")
    assert outcome.code == 0
    assert f"{name} (float32) is left out: memory ran out.\n" in outcome.out
    rates = [left[0]] * 3
    assert [bool(cell) for cell in cells(outcome.out, "denoise")] == left + rates
    assert [bool(cell) for cell in cells(outcome.out, "sum")] == [*left, left[0], False, False]

    error = RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        run(*SMALL, "--size", "32x32")


class Scripted:
    """A contender whose runs take given seconds, and run out of memory where none are given."""

    def __init__(self, name: str, seconds: list[dict[str, float] | None]) -> None:
        self.loads, self.left = 0, iter(seconds)
        self.contender = Contender(name, torch.float32, self.load, enlarges=True)

    def load(self) -> Callable[[Sizes, Stages], str]:
        self.loads += 1
        return self.run

    def run(self, _: Sizes, stages: Stages) -> str:
        seconds = next(self.left)
        if seconds is None:
            raise MemoryError
        stages.seconds.update(seconds)
        return "whole"


def test_contenders_take_turns_and_the_fastest_of_each_stage_counts(upscaler: Upscaler) -> None:
    runs = [{"x": seconds} for seconds in (3.0, 5.0, 4.0, 1.0, 2.0, 6.0)]
    first, second = Scripted("a", runs), Scripted("b", [{"x": 7.0, "y": 1.0}] * 5)
    ((a, b),) = contend([first.contender, second.contender], CPU, [small(upscaler)], rounds=2)
    assert (first.loads, second.loads) == (2, 2)
    assert a.seconds == {"x": 1.0}, "of 5 and 1, which followed runs to warm up"
    assert b.seconds == {"x": 7.0, "y": 1.0}
    assert b.median_ratio_to(a) == statistics.median([8 / 5, 8 / 1])
    assert [*first.left] == [{"x": 6.0}], "after two runs in the first round, three in the last"
    assert a.plans == ["whole"] * 2


def test_memory_that_runs_out_in_one_run_spares_the_others(upscaler: Upscaler) -> None:
    second = {"x": 1.0}
    timed = [second] * 2
    contender = Scripted("a", [*timed, *timed, second, None, *timed, None])
    ((smaller,), (larger,)) = contend([contender.contender], CPU, [small(upscaler)] * 2, rounds=2)
    assert (smaller.missing, smaller.rounds) == ("memory ran out", [])
    assert (larger.missing, larger.seconds, larger.flop) == ("", second, {}), "memory ran out while operations were counted"
    record = larger.record(smaller)
    assert (record["flop"], record["times_ours"], record["median_ratio"]) == (None, None, None)
    assert "flop" not in record["stages"]["x"]


def test_another_plan_than_whole_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Options.make
    monkeypatch.setattr(Options, "make", lambda **values: usual(**values, vae_tile=16))
    outcome = run(*SMALL, "--size", "32x32", "--no-baseline")
    assert "seesr (float32) memory plan by round: tiled VAE.\n" in outcome.out


def test_what_the_stages_leave_out_counts_and_what_was_said_is_told(
    upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = upscaler.upscale

    def slow(*arguments: object) -> Result:
        time.sleep(0.3)
        return dataclasses.replace(usual(*arguments), notes=["something was said"])

    monkeypatch.setattr(upscaler, "upscale", slow)
    stages = Stages()
    assert Ours(upscaler, Options.make(steps=1, seed=0))(small(upscaler), stages) == "whole, something was said"
    assert stages.seconds["rest"] >= 0.3


def test_memory_can_be_limited(run: Run) -> None:
    outcome = run(*SMALL, "--size", "32x32", "--no-baseline", "--memory-limit", "1MB", "--json")
    record = json.loads(outcome.out)
    assert record["memory_limit"] == 1_000_000
    assert record["sizes"]["32x32"]["seesr"]["plans"] != ["whole"]


def cells(table: str, row: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"│ {row} "))
    return [cell.strip() for cell in line.split("│")[2:-1]]


def test_attention_on_a_cpu_is_counted() -> None:
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    with counting() as counter, torch.inference_mode():
        nn.functional.scaled_dot_product_attention(query, key, value)
    scores, result = 2 * 3 * 5 * 7 * 8, 2 * 3 * 5 * 8 * 7
    assert counter.get_total_flops() == 2 * (scores + result)


def test_products_that_give_another_precision_are_counted() -> None:
    first, second = (torch.empty(shape, dtype=torch.bfloat16, device="meta") for shape in ((2, 3, 5), (2, 5, 7)))
    with counting() as counter, torch.inference_mode():
        torch.bmm(first, second, out_dtype=torch.float32)
        torch.bmm(first, second)
    assert counter.get_total_flops() == 2 * (2 * 2 * 3 * 5 * 7)


def test_the_vae_is_counted_in_tiles_too(upscaler: Upscaler) -> None:
    def flop(**values: object) -> dict[str, int]:
        ours, measurement = Ours(upscaler, Options.make(steps=1, seed=0, **values)), new_measurement()
        count(measurement, functools.partial(ours, small(upscaler)))
        return measurement.flop

    whole, tiled = flop(), flop(vae_tile=16)
    for stage in ("encode", "vae_decode"):
        assert whole[stage] <= tiled[stage] < 1.5 * whole[stage]
    assert tiled["denoise"] == whole["denoise"]


class Block(nn.Module):
    """Dynamo takes none that PyTorch has itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.linear(rows)


def test_compiled_blocks_are_compiled_when_they_are_timed() -> None:
    block, compiled = Block(), []

    def compile_it(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., object]:
        def timed(*inputs: object) -> object:
            compiled[-1] += 1
            return graph(*inputs)

        compiled.append(0)
        return timed

    block.compile(backend=compile_it, dynamic=False)

    def operations(rows: int) -> dict[str, int]:
        def run(stages: Stages) -> str:
            with torch.inference_mode(), stages.stage("block"):
                block(torch.randn(rows, 4))
            return "whole"

        measurement = new_measurement()
        measure(measurement, CPU, run)
        count(measurement, run)
        return measurement.flop

    assert operations(3) == {"block": 2 * 3 * 4 * 4}
    assert operations(5) == {"block": 2 * 5 * 4 * 4}
    assert compiled == [2, 2], "graphs, each run to warm up and to be timed, but not to be counted"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", 9], "steps is 9"),
        (["--size", "0x0"], "size is '0x0'"),
        (["--size", "32"], "size is '32'"),
        (["--device", "cuda:99"], "device 'cuda:99' is not available"),
        (["--weights", "nowhere"], "nowhere is not a weights folder"),
        (["--weights", "tiny", "--size", "32x32", "--size", "9000x8"], "at most 8192 pixels"),
    ],
)
def test_a_mistake_is_one_sentence(run: Run, arguments: list[object], words: str) -> None:
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("seesr: ")
    assert words in outcome.err
    assert outcome.err.count("\n") == 1


def test_help_says_where_full_weights_come_from(run: Run) -> None:
    outcome = run("--help")
    assert outcome.code == 0
    assert "scripts/make_random_weights.py FOLDER" in outcome.out


def test_the_baseline_s_attention_is_the_same_in_two_products() -> None:
    query, key, value = torch.randn(3, 2, 4, 9, 8)
    for given in ({}, {"attn_mask": torch.randn(2, 4, 9, 9)}):
        expected = nn.functional.scaled_dot_product_attention(query, key, value, **given)
        assert (plain_attention(query, key, value, **given) - expected).abs().max() < 1e-5
