"""Training, a few steps of each stage on small crops: what it logs, keeps, goes on from, refuses and exports."""

from __future__ import annotations

import copy
import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from helpers import PHOTOS
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from scripts import check_model
from scripts.training import imagenet, losses, thresholds
from scripts.training.batches import batches
from scripts.training.cleaner import CONFIG, cleaner
from scripts.training.export import export
from scripts.training.networks import Networks
from scripts.training.photographs import HELD_OUT, Photographs
from scripts.training.ram import RAM_CONFIG, ram, start_ram
from scripts.training.run import Run
from scripts.training.sr import sr
from scripts.training.tagged_pictures import SIDE as TAGGER_SIDE
from scripts.training.tagged_pictures import TaggedPictures
from scripts.training.tokenizer import VOCABULARY, train_tokenizer
from seesr.cleaner import Cleaner, load_cleaner
from seesr.diffusion.text import load_prompt_encoder
from seesr.tagging.prompt import load_tag_list
from seesr.tagging.ram import RAM, RAMConfig, load_ram
from seesr.upscaler import Upscaler
from seesr.weights.manifest import beside_package
from seesr.weights.resolve import CLEANER, TINY

pytestmark = pytest.mark.training

SIDE = 256


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 crops of the test pictures, and one that is too small for any training."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(24):
        picture = Image.open(PHOTOS / f"{('astronaut', 'chelsea', 'coffee')[number % 3]}.png").convert("RGB")
        left, top = (int(rng.integers(side - SIDE + 1)) for side in picture.size)
        picture.crop((left, top, left + SIDE, top + SIDE)).save(folder / f"{number:02d}.png")
    picture.crop((0, 0, 40, 40)).save(folder / "small.png")
    return folder


def logged_steps(path: Path) -> list[int]:
    with path.open(newline="") as log:
        return [int(row["step"]) for row in csv.DictReader(log)]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def killed_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a run save at `step`, train one more, and end there as by Ctrl-C."""
    optimize = Run.optimize

    def interrupted(run: Run, *arguments: object) -> None:
        optimize(run, *arguments)
        if run.step == step:
            run.save()
        if run.step == step + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "optimize", interrupted)


def test_a_killed_run_goes_on_where_it_was(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(**changed: object) -> None:
        cleaner(**{"images": photographs, "work": tmp_path, "steps": 5, "batch": 2} | changed)

    with monkeypatch.context() as patch:
        killed_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train()
    state = torch.load(tmp_path / "cleaner.pt", weights_only=True)
    again = Run(
        "cleaner",
        tmp_path,
        {"cleaner": Cleaner(**CONFIG)},
        steps=5,
        learning_rate=1e-3,
        settings={
            name: value for name, value in state["settings"].items() if name not in ("steps", "learning_rate", "steady")
        },
    )
    assert again.step == 2
    with again.averaged():
        assert not same(again.models["cleaner"].state_dict(), state["models"]["cleaner"])
        assert same(again.models["cleaner"].state_dict(), state["average"]["cleaner"])
    assert same(again.models["cleaner"].state_dict(), state["models"]["cleaner"])
    moments = again.optimizer.state_dict()["state"]
    assert moments.keys() == state["optimizer"]["state"].keys() != set()
    assert all(same(moments[key], state["optimizer"]["state"][key]) for key in moments)
    with pytest.raises(typer.BadParameter, match="began with batch 2, not 3"):
        train(batch=3)
    with pytest.raises(typer.BadParameter, match="began with steps 5, not 9"):
        train(steps=9)
    del state["settings"]["steady"]  # as one of before there was such a setting
    torch.save(state, tmp_path / "cleaner.pt")
    train()
    assert logged_steps(tmp_path / "cleaner.csv") == [1, 2, 3, 4, 5]
    state = torch.load(tmp_path / "cleaner.pt", weights_only=True)
    assert state["step"] == 5
    train(work=tmp_path / "unbroken")
    unbroken = torch.load(tmp_path / "unbroken" / "cleaner.pt", weights_only=True)["models"]["cleaner"]
    for key, tensor in state["models"]["cleaner"].items():
        assert torch.allclose(tensor, unbroken[key], atol=1e-6), "what is drawn does not depend on where it was broken"
    written = load_cleaner(tmp_path / CLEANER).state_dict()
    for key, tensor in state["average"]["cleaner"].items():
        assert torch.equal(written[key].half(), tensor.half())


@pytest.mark.parametrize("period", [2, 4])
@pytest.mark.parametrize("dim", [2, 3])
def test_lines_that_stand_apart_cost(period: int, dim: int) -> None:
    truth = torch.rand(1, 3, 112, 112)
    apart = torch.arange(112).remainder(period).eq(0).float() * 0.1
    lined = truth + (apart if dim == 3 else apart[:, None])
    assert losses.grid_loss(lined, truth).item() > 0.1
    assert losses.grid_loss(truth + 0.1, truth).item() < 1e-6, "an even error is none"


@pytest.mark.parametrize("period", [4, 16])
def test_a_grid_whose_lines_are_all_alike_costs_too(period: int) -> None:
    truth, wave = torch.rand(1, 3, 112, 112), 0.1 * torch.cos(2 * torch.pi * torch.arange(112) / period)
    grid = wave[:, None] * wave / 0.1
    assert grid.mean(dim=0).abs().max() < 1e-6
    assert losses.grid_loss(truth + grid, truth).item() > 0.02


def noise(seed: int) -> Tensor:
    """In all directions alike, grey, `(1, 3, 112, 112)`."""
    return 0.1 * torch.randn(1, 1, 112, 112, generator=torch.Generator().manual_seed(seed)).expand(-1, 3, -1, -1)


def hatching(period: float, degrees: float, phase: float = 0.0, strength: float = 0.3) -> Tensor:
    """`(112, 112)`."""
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    along = x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))
    return strength * torch.sin(2 * torch.pi * (along / period + phase))


@pytest.mark.parametrize("period", [2.7, 4.0, 6.1])
@pytest.mark.parametrize("degrees", [0, 20, 45, 90, 135, 160])
def test_a_hatching_costs_whatever_its_direction_period_and_phase(degrees: float, period: float) -> None:
    truth = noise(0)
    as_much_noise = losses.direction_loss(truth + 3 * 0.5**0.5 * noise(1), truth).item()
    costs = [losses.direction_loss(truth + hatching(period, degrees, phase), truth).item() for phase in (0.0, 0.3)]
    assert min(costs) > 2 * as_much_noise
    assert costs[0] == pytest.approx(costs[1], rel=0.1)


def test_directions_are_weighed_against_those_of_the_target() -> None:
    truth = noise(0)
    hatched = truth + hatching(4.0, 45)
    same, other = (losses.direction_loss(truth + hatching(4.0, d, 0.3), hatched).item() for d in (45, 135))
    assert other > 10 * same
    assert losses.direction_loss(truth, truth).item() == pytest.approx(0, abs=1e-6)
    assert losses.direction_loss(truth / 2 + 0.3, truth).item() < 0.01, "its strength and brightness are others' to judge"
    coloured = hatching(4.0, 0) * torch.tensor([-0.5, 1.0, -0.5])[:, None, None]
    assert losses.direction_loss(truth + coloured, truth).item() < 1e-6, "of brightness alone"


def test_what_nobody_sees_has_no_direction() -> None:
    unseen = torch.zeros(1, 3, 112, 112, requires_grad=True)
    faint, visible = (losses.direction_loss(unseen + hatching(4.0, 0, 0.0, s), unseen).item() for s in (0.001, 0.03))
    assert faint < 0.1 * visible
    losses.direction_loss(unseen, torch.zeros(1, 3, 112, 112)).backward()
    assert unseen.grad.isfinite().all()


def blurred(images: Tensor, sigma: float) -> Tensor:
    """By a Gaussian that wraps around."""
    squares = torch.fft.fftfreq(images.shape[-2])[:, None].square() + torch.fft.rfftfreq(images.shape[-1]).square()
    return torch.fft.irfft2(torch.fft.rfft2(images) * torch.exp(-2 * (torch.pi * sigma) ** 2 * squares))


def test_too_soft_and_too_harsh_costs_wherever_the_details_are() -> None:
    truth = blurred(3 * noise(0), 0.8)
    costs = [losses.sharpness_loss(blurred(truth, sigma), truth).item() for sigma in (0.0, 0.5, 1.0, 2.0)]
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert costs[-1] > 1
    harsh = truth + 0.8 * (truth - blurred(truth, 1.5))
    assert losses.sharpness_loss(harsh, truth) > 0.4
    halves = torch.cat([blurred(truth, 1.0)[..., :56], harsh[..., 56:]], dim=-1)
    assert losses.sharpness_loss(halves, truth) > 0.3, "harsh here does not make up for soft there"
    soft = blurred(truth, 1.0).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.sharpness_loss(soft, truth), soft)
    assert (gradient * (soft - blurred(soft, 2.0))).sum() < 0, "more of what a soft picture has makes it less"
    assert losses.sharpness_loss(truth.roll(5, dims=-1), truth) < 0.3 * costs[-1], "where exactly, the other losses say"
    for period in (2.5, 56.0):
        assert losses.sharpness_loss(truth + hatching(period, 0), truth) < 0.1, (
            "what is finer or coarser is not its business"
        )


def test_the_perceptual_network_judges_brightness_alone() -> None:
    generator, windows = torch.Generator().manual_seed(0), []
    output, target = (torch.rand(2, 3, 112, 112, generator=generator) for _ in range(2))
    output.requires_grad_()

    def difference(first: Tensor, second: Tensor) -> Tensor:
        assert first.shape == second.shape == (2, 3, losses.WINDOW, losses.WINDOW)
        windows.append(second)
        brighter = losses.brightness(first) - losses.brightness(second)
        assert torch.allclose(first - second, brighter.expand_as(first), atol=1e-6), "in the target's colours"
        return (first - second).abs().mean(dim=(1, 2, 3))

    factors = torch.tensor([1.0, 0.0])
    for seed in (0, 1):
        loss = losses.perceptual_loss(difference, output, target, factors, np.random.default_rng(seed))
        (gradient,) = torch.autograd.grad(loss, output)
        assert (gradient[0] != 0).any(dim=0).sum() == losses.WINDOW**2, "in the window"
        assert (gradient[1] == 0).all(), "times the picture's factor"
        assert torch.allclose(gradient[0], gradient[0, :1].expand(3, -1, -1), atol=1e-9), "towards no colour"
    assert not torch.equal(*windows), "each time elsewhere"


def test_the_perceptual_loss_joins_and_those_on_directions_and_sharpness_after_it() -> None:
    balance = losses.Balance(0.1, 0.5, perceptual_weight=0.5, grid_weight=3.0, direction_weight=0.1, sharpness_weight=0.05)
    times = (0.0, 0.1, 0.3, 0.5, 0.625, 0.75, 1.0)
    assert [balance.perceptual_growth(at) for at in times] == pytest.approx([0, 0, 0.5, 1, 1, 1, 1])
    assert [balance.finish_growth(at) for at in times] == pytest.approx([0, 0, 0, 0, 0.5, 1, 1])
    names = ("detail", "vae", "raw", "grid", "direction", "sharpness", "perceptual")
    totals = [
        balance.total({name: torch.tensor(float(name == one)) for name in names}, progress).item()
        for one in names
        for progress in (0, 1)
    ]
    assert totals == pytest.approx([1, 1, 0.5, 0.5, 0.03, 0.03, 0.3, 3, 0, 0.1, 0, 0.05, 0, 0.5])


def test_the_vocabulary_of_some_tags_is_the_same_each_time(tmp_path: Path) -> None:
    tags = load_tag_list(beside_package(TINY) / "ram", 160).names
    for number in range(4):  # in whose order ties are broken differs within a process too, unless it is prescribed
        train_tokenizer(tags, tmp_path / str(number))
    for name in ("vocab.json", "merges.txt"):
        assert len({(tmp_path / str(number) / name).read_bytes() for number in range(4)}) == 1
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "0")
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.unk_token_id not in tokenizer(", ".join(tags), add_special_tokens=False, truncation=False).input_ids


def test_training_the_whole_and_exporting_it(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the stead of the perceptual network, which is not there where tests run, a plain difference."""

    class Difference(nn.Module):
        def __init__(self, net: str) -> None:
            super().__init__()
            assert net == "vgg", "the scale must never be trained on"

        @staticmethod
        def is_installed() -> bool:
            return True

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return (first - second).abs().mean(dim=(1, 2, 3))

    monkeypatch.setattr("scripts.training.sr.STLPIPS", Difference)
    monkeypatch.setattr("scripts.training.sr.SNAPSHOT_EVERY", 2)
    work, output, shipped = tmp_path / "work", tmp_path / "weights", beside_package(TINY)

    def train(**changed: object) -> None:
        usual = {
            "images": photographs,
            "work": work,
            "steps": 3,
            "batch": 1,
            "perceptual_from": -1.0,
            "perceptual_full": 0.0,
        }
        sr(**usual | {"ram": shipped / "ram", "cleaner": shipped / CLEANER} | changed)

    with monkeypatch.context() as patch:
        killed_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            train()
    train()
    assert logged_steps(work / "sr.csv") == [1, 2, 3]
    train(work=tmp_path / "unbroken")
    broken, unbroken = (torch.load(folder / "sr.pt", weights_only=True) for folder in (work, tmp_path / "unbroken"))
    for part in Networks._fields:
        for key, tensor in broken["models"][part].items():
            assert torch.allclose(tensor, unbroken["models"][part][key], atol=1e-5), "the same pictures and the same noise"
    weights = [broken["settings"][f"{name}_weight"] for name in ("perceptual", "grid", "direction", "sharpness")]
    assert weights == [0.5, 3.0, 0.1, 0.05]
    shown = Image.open(work / "sr_000003.png")
    assert shown.size == (3 * 128, 128 * HELD_OUT), "what went in, what came out, the truth"
    with pytest.raises(typer.BadParameter, match="leaves the direction and sharpness losses no time"):
        train(perceptual_full=0.8)
    with pytest.raises(typer.BadParameter, match="exists and is not"):
        sr(images=photographs, work=work, steps=2, batch=1, ram=shipped / CLEANER)
    export(work, tmp_path / "earlier", step=2)
    export(work, output)
    export(work, tmp_path / "between", blend=tmp_path / "earlier", share=0.25)
    earlier, between, last = (
        load_file(folder / "sd-turbo" / "unet" / "diffusion_pytorch_model.safetensors")
        for folder in (tmp_path / "earlier", tmp_path / "between", output)
    )
    assert any(not torch.equal(earlier[key], last[key]) for key in last)
    for key, tensor in between.items():
        assert torch.allclose(tensor.float(), 0.75 * earlier[key].float() + 0.25 * last[key].float(), rtol=2e-3, atol=1e-6)
    schedule = Path("sd-turbo", "scheduler", "scheduler_config.json")
    assert (output / schedule).read_bytes() == (shipped / schedule).read_bytes(), "the shipped weights are of this script"
    picture = Image.open(photographs / "00.png")
    small = picture.resize((SIDE // 4, SIDE // 4), Image.Resampling.BICUBIC)
    made = Upscaler.load(str(output)).upscale(small, scale=4, seed=0).image
    errors = [
        np.abs(np.asarray(image, float) - np.asarray(picture, float)).mean()
        for image in (made, small.resize(picture.size, Image.Resampling.BICUBIC))
    ]
    assert made.size == picture.size
    assert errors[0] < 2 * errors[1], "fresh weights let the picture through, though not all of it"

    # Another seed draws another text encoder, were these weights not taken.
    train(work=tmp_path / "further", steps=1, seed=1, start=output, checkpointing=True, bad=1.0)
    begun = load_prompt_encoder(output / "sd-turbo").state_dict()
    state = torch.load(tmp_path / "further" / "sr.pt", weights_only=True)
    for key, tensor in state["models"]["text"].items():
        assert torch.allclose(tensor, begun[key], atol=1e-5), "one step of the warm-up changes next to nothing"


def test_export_wants_all_parts(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"sr_000500\.pt does not exist"):
        export(tmp_path, tmp_path / "weights", step=500)
    with pytest.raises(typer.BadParameter, match="train all parts first"):
        export(tmp_path, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


@pytest.fixture
def encoder_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """In the stead of the encoder's package, which is not there where tests run: random ones of its names and shapes."""
    encoder = RAM(RAMConfig.from_dict(RAM_CONFIG)).visual_encoder
    generator, weights = torch.Generator().manual_seed(0), {}

    def add(convolution: nn.Conv2d, name: str, norm: str) -> None:
        shape, channels = convolution.weight.shape, convolution.out_channels
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * shape[1:].numel() ** -0.5
        for part, least in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            weights[f"{norm}.{part}"] = torch.rand(channels, generator=generator) + least

    add(encoder.stem, "_conv_stem", "_bn0")
    for number, block in enumerate(encoder.blocks):
        if block.expand is not None:
            add(block.expand, f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0")
        add(block.depthwise, f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1")
        add(block.project, f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2")
    add(encoder.head, "_conv_head", "_bn1")
    weights["_fc.weight"] = torch.randn(1000, encoder.head.out_channels, generator=generator) / 10
    weights["_fc.bias"] = torch.zeros(1000)
    monkeypatch.setattr(imagenet, "encoder_weights", lambda: weights)
    monkeypatch.setattr(imagenet, "encoder_is_installed", lambda: True)
    return weights


def test_the_encoder_computes_what_its_package_does(encoder_weights: dict[str, Tensor]) -> None:
    """Convolution and normalisation one after the other, of pictures as the package wants them, against both in one."""
    model = start_ram(4, encoder_weights)
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    for module in model.visual_encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, given, made: seen.__setitem__(module, (given[0], made)))
    image = torch.rand(1, 3, TAGGER_SIDE, TAGGER_SIDE, generator=torch.Generator().manual_seed(1))

    def apart(convolution: nn.Conv2d, given: Tensor, name: str, norm: str) -> Tensor:
        bare = copy.deepcopy(convolution)
        bare.weight, bare.bias = nn.Parameter(encoder_weights[f"{name}.weight"]), None
        mean, var, weight, bias = (
            encoder_weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return nn.functional.batch_norm(bare.forward(given), mean, var, weight, bias, eps=1e-3)

    encoder = model.visual_encoder
    with torch.no_grad():
        model.encode(image)
        # The zeros on the right and below are another grey for the package than for RAM.
        stem = apart(encoder.stem, (255 * image - 127) / 128, "_conv_stem", "_bn0")
        assert torch.allclose(seen[encoder.stem][1][..., :-1, :-1], stem[..., :-1, :-1], atol=1e-4)
        layers = {encoder.head: ("_conv_head", "_bn1")}
        for number, block in enumerate(encoder.blocks):
            layers[block.expand] = f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0"
            layers[block.depthwise] = f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1"
            layers[block.project] = f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2"
        layers.pop(None)  # a block that widens nothing
        assert {*layers, encoder.stem} == seen.keys()
        for layer, names in layers.items():
            given, made = seen[layer]
            assert torch.allclose(made, apart(layer, given, *names), atol=1e-4)


def test_what_the_classifier_knows_is_imagined(encoder_weights: dict[str, Tensor]) -> None:
    known = imagenet.KnownTags.create(["cat", "rocket", "dog"], encoder_weights, torch.device("cpu"))
    assert known.columns == [0, 2]
    assert [row.nonzero().flatten().tolist() for row in known.members] == [[*range(281, 286)], [*range(151, 269)]]
    generator = torch.Generator().manual_seed(0)
    features = 2 * torch.rand(16, 36, 1280, generator=generator) * torch.rand(16, 1, 1280, generator=generator)
    imagined = known.imagine(features, np.random.default_rng(0))
    likeliest = [known.classifier(some.mean(dim=1)).argmax(dim=1) for some in (features, imagined)]
    assert imagined.shape == features.shape
    assert imagined.min() >= 0
    assert imagined.max() <= 6
    before, after = (known.members[:, classes].sum(dim=1) for classes in likeliest)
    assert before.sum() <= 6
    assert after.min() >= 5, "about as many cats as dogs"
    assert after.sum() >= 12
    labels = torch.tensor([[0.0, 1.0, 0.0]]).expand(16, -1)
    completed = known.complete(labels, imagined)
    assert (completed[:, 1] == 1).all(), "what it does not know stays"
    shares = known.classifier(imagined.mean(dim=1)).softmax(dim=1)
    assert torch.allclose(completed[:, 0], shares[:, 281:286].sum(dim=1), atol=1e-5)
    assert torch.equal(known.complete(torch.ones(16, 3), imagined), torch.ones(16, 3)), "labels are only raised"


def test_training_the_tagger_and_writing_it(encoder_weights: dict[str, Tensor], photographs: Path, tmp_path: Path) -> None:
    folder, work = tmp_path / "tagged", tmp_path / "work"
    folder.mkdir()
    (folder / "images").symlink_to(photographs)
    tags = ("woman | rocket", "cat", "coffee")
    (folder / "labels.tsv").write_text("".join(f"{number:02d}.png\t{tags[number % 3]}\n" for number in range(20)))
    ram(tags=folder, work=work, steps=2, dape_steps=2, batch=2)
    assert logged_steps(work / "ram.csv") == logged_steps(work / "dape.csv") == [1, 2]
    assert load_tag_list(work / "ram", 4).names == ["cat", "coffee", "rocket", "woman"]
    trained = torch.load(work / "ram.pt", weights_only=True)["average"]["ram"]
    begun = start_ram(4, encoder_weights).state_dict()
    assert trained.keys() == begun.keys()
    for key, tensor in trained.items():
        assert torch.equal(tensor, begun[key]) == key.startswith("visual_encoder."), "the encoder keeps what it knows"
    (folder / "labels.tsv").write_text("".join(f"{number:02d}.png\t{tags[number % 2]}\n" for number in range(20)))
    with pytest.raises(typer.BadParameter, match="began with labels"):
        ram(tags=folder, work=work, steps=2, dape_steps=2, batch=2)
    bare = RAM(RAMConfig.from_dict(RAM_CONFIG | {"num_tags": 4}))
    bare.load_state_dict(trained)
    image = torch.rand(1, 3, TAGGER_SIDE, TAGGER_SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (tokens, logits), (plain_tokens, _) = load_ram(work / "ram")(image), bare(image)
    assert logits.shape == (1, 4)
    assert tokens.shape == plain_tokens.shape
    change = (tokens - plain_tokens).abs().max()
    assert 1e-6 < change < 0.5 * plain_tokens.abs().max(), "DAPE is merged, after two steps with little in it"


def test_a_tag_brings_along_what_it_is_a_case_of(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(photographs)
    tags = ("dalmatian", "dog", "strawberry | dog")
    (tmp_path / "labels.tsv").write_text("".join(f"{number:02d}.png\t{tags[number % 3]}\n" for number in range(21)))
    data = TaggedPictures.read(tmp_path)
    assert data.tags == ["dalmatian", "dog", "strawberry"], "nothing of fruit, which no picture is said to show"
    assert data.labels[:3].tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 1]]


def test_a_picture_may_have_no_tag(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(photographs)
    tags = ("", "|cat|", "cat | ")
    (tmp_path / "labels.tsv").write_text("".join(f"{number:02d}.png\t{tags[number % 3]}\n" for number in range(21)))
    data = TaggedPictures.read(tmp_path)
    assert data.tags == ["cat"]
    assert data.labels[:3].tolist() == [[0], [1], [1]]


def test_each_half_is_judged_by_the_thresholds_of_the_other() -> None:
    """Of the even pictures a tag is right from 0.65 on, of the odd ones from 0.95; another one is given seldom."""
    confidences = torch.tensor([[0.95, 0.1], [0.95, 0.1], [0.65, 0.1], [0.85, 0.1]] * 5 + [[0.1, 0.99]] * 2)
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]] * 5 + [[0.0, 1.0]] * 2)
    given = thresholds.given_by_halves(confidences[:, None], labels)[:, 0]
    assert given[:20:2, 0].tolist() == [True, False] * 5, "with the odd ones' threshold"
    assert given[1:20:2, 0].tolist() == [True, True] * 5, "with the even ones'"
    assert given[:, 1].tolist() == [False] * 20 + [True] * 2


def test_a_threshold_is_the_lowest_that_is_right_often_enough() -> None:
    """Two tags that are given often, of which one is right only when more certain, and one that is given seldom."""
    confidences = torch.tensor([[0.95, 0.9, 0.9]] * 2 + [[0.95, 0.9, 0.6]] + [[0.95, 0.9, 0.1]] + [[0.75, 0.8, 0.1]] * 4)
    labels = torch.tensor([[1.0, 1.0, 1.0]] * 2 + [[1.0, 1.0, 0.0]] * 2 + [[0.0, 1.0, 0.0]] * 4)
    views = confidences[:, None].expand(-1, 2, -1)
    doubtful, sure, seldom = thresholds.choose_thresholds(views, labels)
    assert doubtful == pytest.approx(0.75, abs=0.011)
    assert seldom == pytest.approx(0.6, abs=0.011)
    assert sure == seldom, "where its own could be lower, the common one holds"
    wrong = thresholds.choose_thresholds(views, torch.zeros_like(labels))
    assert wrong == [thresholds.NEVER] * 3


def test_the_cleaner_takes_back_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.open(PHOTOS / "chelsea.png").save(tmp_path / "cat.png")
    check_model.cleaner(tmp_path, str(beside_package(TINY)))
    rows = {
        row[1].strip(): row[2] for row in (line.split("│") for line in capsys.readouterr().out.splitlines()) if len(row) > 3
    }
    assert rows.keys() == check_model.DAMAGES.keys()
    before, after = (float(number) for number in rows["noise of 12 levels"].split(","))
    assert after < 0.7 * before


@pytest.mark.parametrize("size", [28, 50])
def test_a_crop_that_the_cleaner_cannot_take_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(typer.BadParameter, match=f"--size {size} is not a multiple of 8 from 32 on"):
        cleaner(images=tmp_path, work=tmp_path / "work", size=size)
    assert not (tmp_path / "work").exists()


def test_wrong_tags_need_another_picture(tmp_path: Path) -> None:
    Image.open(PHOTOS / "chelsea.png").save(tmp_path / "cat.png")
    with pytest.raises(typer.BadParameter, match="has 1 picture; there must be another"):
        check_model.semantics(tmp_path, tmp_path, str(beside_package(TINY)))


def test_pictures_that_are_no_use_are_named(photographs: Path, tmp_path: Path) -> None:
    assert len(Photographs(photographs, 64, 24).images) == 24
    with pytest.raises(typer.BadParameter, match="0 pictures with sides of 264 pixels or more, not 24"):
        Photographs(photographs, 264, 24)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(typer.BadParameter, match=r"broken\.jpg"):
        Photographs(tmp_path, 64, 1)


def test_what_fails_beside_fails_the_run() -> None:
    def draw(rng: np.random.Generator) -> list[tuple[np.float64]]:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        next(batches(draw, 2, seed=0))


def test_a_batch_is_decided_by_its_number() -> None:
    def draw(rng: np.random.Generator) -> list[tuple[np.float64]]:
        return [(np.float64(rng.random()),) for _ in range(3)]

    given, later = ([values for (values,) in itertools.islice(batches(draw, 4, 1, first), 20 - first)] for first in (0, 5))
    assert all(values.shape == (4,) for values in given)
    assert len(np.unique(given)) == 80, "each is drawn anew"
    assert np.array_equal(given[5:], later)
    (other,) = next(batches(draw, 4, seed=2))
    assert not np.isin(other, given).any()


def test_the_learning_rate_is_steady_before_it_falls(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    run = Run("part", tmp_path, {"model": model}, steps=1000, learning_rate=1e-3, steady=0.5)
    rates = {}
    for step in (0, 99, 300, 500, 750, 999):
        run.step = step
        run.optimize(model(torch.ones(1, 2)).sum(), {})
        rates[step] = run.optimizer.param_groups[0]["lr"]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[99] == rates[300] == rates[500] == pytest.approx(1e-3)
    assert rates[750] == pytest.approx(0.51e-3)
    assert rates[999] == pytest.approx(0.02e-3, rel=0.01)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    run = Run("part", tmp_path, {"model": model}, steps=10, learning_rate=1e-3)
    run.optimize(model(torch.ones(1, 2)).sum(), {})
    before = model.weight.clone()
    with pytest.raises(RuntimeError, match="non-finite"):
        run.optimize(model(torch.full((1, 2), torch.nan)).sum(), {})
    assert torch.equal(model.weight, before)
