"""LoRA: the effect is that of a merge by hand, nothing is left behind, and what does not fit is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import loras
import pytest
import torch
from helpers import cases, hooked
from hypothesis import given, settings
from hypothesis import strategies as st
from loras import Factors
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor

from seesr import OptionError, WeightsError
from seesr.errors import CanceledError
from seesr.generation.adapters import adapted
from seesr.generation.generator import Generator
from seesr.generation.infotext import Infotext
from seesr.generation.library import Library
from seesr.generation.like import values_from_settings
from seesr.generation.lora import Lora, read_lora
from seesr.generation.lora_tags import LoraTag, as_tags, split_tags
from seesr.generation.model_file import ModelFile
from seesr.generation.options import GenerationOptions

PROMPT = "a cat, sitting"
VALUES: dict[str, Any] = {"steps": 2, "seed": 5, "guidance_scale": 3.0}
ATTENTION = ("attn1.to_q", "attn2.to_k", "attn2.to_out", "ff.net.0.proj", "proj_in")


def networks(generator: Generator) -> tuple[Any, Any]:
    components = generator.engine.components
    return components["unet"], components["prompt_encoder"].text_encoder


def read(path: Path, generator: Generator) -> Lora:
    return read_lora(ModelFile(path.stem, path), *networks(generator), "random")


def predicted(unet: Any, x: Tensor | None = None) -> Tensor:
    torch.manual_seed(1)
    with torch.inference_mode():
        return unet(torch.randn(1, 4, 16, 16), 500, encoder_hidden_states=torch.randn(1, 7, 32))[0]


@pytest.fixture
def with_loras(generator: Generator, tmp_path: Path) -> Generator:
    """The generator with two LoRAs of its own: of attention in both networks, and of every layer of the UNet."""
    unet, text_encoder = networks(generator)
    folder = tmp_path / "models" / "loras"
    attention = loras.kohya(loras.factors(unet, 1, ATTENTION), loras.factors(text_encoder, 2))
    loras.write(folder / "attention.safetensors", attention)
    loras.write(folder / "people" / "my style (v2).safetensors", loras.kohya(loras.factors(unet, 3)))
    return Generator(generator.engine, generator.checkpoint, data=tmp_path)


def hooks(generator: Generator) -> list[list[int]]:
    """The keys of each module's hooks; transformers leaves some of its own in a text encoder that gave its hidden states."""
    return [list(module._forward_hooks) for one in networks(generator) for module in one.modules()]


def made(generator: Generator, prompt: str = PROMPT, **values: Any) -> bytes:
    return generator.text_to_image(prompt, **VALUES | values)[0].image.tobytes()


def latents(generator: Generator, prompt: str) -> Tensor:
    """Those of the finished picture."""
    vae, seen = generator.engine.components["vae"], list[Tensor]()
    with hooked(vae.post_quant_conv, lambda _, inputs: seen.append(inputs[0])):
        generator.text_to_image(prompt, **VALUES)
    return seen[0] * vae.config.scaling_factor


@pytest.fixture(scope="module")
def merged(checkpoint: Path) -> Generator:
    """One whose weights a test changes, and puts back."""
    return Generator.load(checkpoint, device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("tags", "attention", "every"),
    [
        ("<lora:attention:0.8>", (0.8, 0.8), 0.0),
        ("<lora:attention:0.3:-0.6>", (0.3, -0.6), 0.0),
        ("<lora:attention:te=0>", (0.0, 1.0), 0.0),
        ("<lora:attention:0.5><lora:people/my style (v2):0.4>", (0.5, 0.5), 0.4),
    ],
)
def test_pictures_are_those_of_weights_merged_by_hand(
    with_loras: Generator, merged: Generator, tags: str, attention: tuple[float, float], every: float
) -> None:
    unet, text_encoder = networks(merged)
    before = {one: {key: value.clone() for key, value in one.state_dict().items()} for one in networks(merged)}
    loras.merge(text_encoder, loras.factors(text_encoder, 2), attention[0])
    loras.merge(unet, loras.factors(unet, 1, ATTENTION), attention[1])
    loras.merge(unet, loras.factors(unet, 3), every)
    merged.passes.embedder.clear()
    expected = latents(merged, PROMPT)
    for network, weights in before.items():
        network.load_state_dict(weights)
    ours, without = latents(with_loras, PROMPT + tags), latents(with_loras, PROMPT)
    assert (ours - expected).abs().max() < 1e-4
    assert (ours - without).abs().max() > 0.05


def test_nothing_is_left_behind(with_loras: Generator) -> None:
    before, tags = made(with_loras), "<lora:attention:0.8><lora:my style (v2)>"
    hooks_before = hooks(with_loras)
    weights = {key: value.clone() for one in networks(with_loras) for key, value in one.state_dict().items()}
    changed = made(with_loras, PROMPT + tags)
    assert changed not in (before, made(with_loras, f"{PROMPT}<lora:attention:0.7>"))
    assert made(with_loras) == before
    assert made(with_loras, f"{PROMPT}<lora:attention:0><lora:my style (v2):te=1:unet=0>") == before
    for place in ("prompt", "denoise"):

        def cancel(stage: str, done: int, total: int, place: str = place) -> None:
            if stage == place and (place == "prompt" or done == 1):
                raise CanceledError("enough")

        with pytest.raises(CanceledError):
            made(with_loras, f"{PROMPT} again{tags}", progress=cancel)
        assert made(with_loras) == before
    assert made(with_loras, PROMPT, loras=("attention:0.8", "my style (v2)")) == changed
    assert all(torch.equal(weights[key], value) for one in networks(with_loras) for key, value in one.state_dict().items())
    assert hooks(with_loras) == hooks_before


@pytest.mark.parametrize("settings", [{"sequential": True}, {"dtype": "bfloat16"}])
def test_networks_that_are_read_when_they_run_or_are_smaller_are_changed_too(
    checkpoint: Path, with_loras: Generator, settings: dict[str, Any]
) -> None:
    other = Generator.load(checkpoint, device="cpu", **{"dtype": "float32"} | settings)
    alike = Generator(other.engine, other.checkpoint, data=with_loras.data)
    tagged = f"{PROMPT}<lora:attention:0.8>"
    changed, before = latents(alike, tagged), latents(alike, PROMPT)
    assert (changed - latents(with_loras, tagged)).abs().mean() < (0.1 if "dtype" in settings else 1e-6)
    assert (before - latents(with_loras, PROMPT)).abs().mean() < (0.1 if "dtype" in settings else 1e-6)


@pytest.mark.compile
def test_what_is_compiled_steps_aside(checkpoint: Path, with_loras: Generator) -> None:
    compiled = Generator.load(checkpoint, device="cpu", dtype="float32", compiled=True)
    alike, tagged = Generator(compiled.engine, compiled.checkpoint, data=with_loras.data), f"{PROMPT}<lora:attention:0.8>"
    before = made(alike)
    (changed,) = alike.text_to_image(tagged, **VALUES)
    assert changed.image.tobytes() == made(with_loras, tagged)
    assert changed.notes == ["with a LoRA the UNet runs without what was compiled, or it would be compiled for each job"]
    assert made(alike) == before


def as_diffusers(unet: Factors, text_encoder: Factors, down: str, up: str, processor: str = "") -> dict[str, Tensor]:
    """The tensors of a file in one of diffusers' layouts, old or new, whose scale is 1."""
    tensors = dict[str, Tensor]()
    for prefix, by_name in (("unet.", unet), ("text_encoder.text_model.", text_encoder)):
        for name, (first, second) in by_name.items():
            path = prefix + name.removeprefix("text_model.")
            if processor and prefix == "unet.":
                path = path.replace(".to_", ".processor.to_").removesuffix(".0")
            tensors |= {f"{path}{down}.weight": first, f"{path}{up}.weight": second}
    return tensors


@pytest.mark.parametrize(
    ("down", "up", "processor"),
    [
        (".lora_A", ".lora_B", ""),
        (".lora.down", ".lora.up", ""),
        (".lora_linear_layer.down", ".lora_linear_layer.up", ""),
        ("_lora.down", "_lora.up", "processor"),
    ],
)
def test_every_layout_is_the_same_change(generator: Generator, tmp_path: Path, down: str, up: str, processor: str) -> None:
    unet, text_encoder = networks(generator)
    changes = loras.factors(unet, 1, ("to_q", "to_out.0")), {} if processor else loras.factors(text_encoder, 2)
    settings = {f"{name}.{key}": value for name in ("unet", "text_encoder") for key, value in (("r", 4), ("lora_alpha", 2))}
    theirs = read(
        loras.write(
            tmp_path / "theirs.safetensors",
            as_diffusers(*changes, down, up, processor),
            {"lora_adapter_metadata": json.dumps(settings)},
        ),
        generator,
    )
    kohya = read(loras.write(tmp_path / "kohya.safetensors", loras.kohya(*changes)), generator)
    for ours, expected in ((theirs.unet, kohya.unet), (theirs.text_encoder, kohya.text_encoder)):
        assert ours.keys() == expected.keys()
        assert all(ours[name].scale == expected[name].scale == 0.5 for name in ours)
        assert all(torch.equal(ours[name].delta(), expected[name].delta()) for name in ours)
    assert len(theirs.unet) == len(changes[0])


@pytest.mark.parametrize(
    "kind", ["LoRA", "rank pattern", "rsLoRA", "LoHa", "LoHa, Tucker", "LoKr", "LoKr, Tucker", "LoKr, whole"]
)
def test_peft_s_files_have_peft_s_effect(checkpoint: Path, generator: Generator, tmp_path: Path, kind: str) -> None:
    layers = ["to_q", "attn2.to_k", "to_out.0", "ff.net.0.proj", "conv1", "downsamplers.0.conv", "conv_shortcut"]
    kwargs: dict[str, Any] = {"target_modules": layers}
    configs: dict[str, Any] = {
        "LoRA": lambda: LoraConfig(r=4, lora_alpha=3, init_lora_weights=False, **kwargs),
        "rank pattern": lambda: LoraConfig(
            r=4, lora_alpha=3, rank_pattern={"to_q": 2}, alpha_pattern={"attn2.to_k": 7}, init_lora_weights=False, **kwargs
        ),
        "rsLoRA": lambda: LoraConfig(r=4, lora_alpha=3, use_rslora=True, init_lora_weights=False, **kwargs),
        "LoHa": lambda: LoHaConfig(r=3, alpha=5, init_weights=False, **kwargs),
        "LoHa, Tucker": lambda: LoHaConfig(r=3, alpha=5, use_effective_conv2d=True, init_weights=False, **kwargs),
        "LoKr": lambda: LoKrConfig(r=2, alpha=5, decompose_both=True, init_weights=False, **kwargs),
        "LoKr, Tucker": lambda: LoKrConfig(r=2, alpha=5, use_effective_conv2d=True, init_weights=False, **kwargs),
        "LoKr, whole": lambda: LoKrConfig(r=10_000, alpha=10_000, init_weights=False, **kwargs),
    }
    torch.manual_seed(3)
    other = networks(Generator.load(checkpoint, device="cpu", dtype="float32"))[0]
    theirs = get_peft_model(other, configs[kind]()).eval()
    folder = tmp_path / "loras" / "by peft"
    theirs.save_pretrained(folder)
    if not isinstance(configs[kind](), LoraConfig):  # LyCORIS has the scale as alpha of each layer
        file = folder / "adapter_model.safetensors"
        tensors = {f"lora_unet_{_flat(key)}": value for key, value in load_file(file).items()}
        alphas = {key.partition(".")[0] + ".alpha": torch.tensor(float(configs[kind]().alpha)) for key in tensors}
        folder = loras.write(tmp_path / "lycoris" / "file.safetensors", tensors | alphas).parent
    (file,) = Library(folder, "LoRA").models()
    unet, before = networks(generator)[0], predicted(networks(generator)[0])
    lora = read_lora(file, *networks(generator), "random")
    with adapted(unet, [(lora.unet, 1.0)]):
        changed = predicted(unet)
    expected = predicted(theirs.base_model.model)
    assert (changed - expected).abs().max() < 1e-4
    assert (changed - before).abs().max() > 0.01
    assert torch.equal(predicted(unet), before)


def _flat(key: str) -> str:
    """The name of a tensor of peft's as LyCORIS writes it."""
    layer, _, part = key.removeprefix("base_model.model.").rpartition(".")
    return f"{layer.replace('.', '_')}.{part}"


def refusal(path: Path, tensors: dict[str, Tensor], generator: Generator, metadata: dict[str, str] | None = None) -> str:
    """The sentence with which a file of these tensors is refused."""
    with pytest.raises(WeightsError) as refused:
        read(loras.write(path, tensors, metadata), generator)
    sentence = str(refused.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


def test_what_does_not_fit_is_refused_with_how_much_of_it_does(generator: Generator, tmp_path: Path) -> None:
    unet, text_encoder = networks(generator)
    tensors, path = (
        loras.kohya(loras.factors(unet, 1, ATTENTION), loras.factors(text_encoder, 2)),
        tmp_path / "a.safetensors",
    )
    count, key = len(tensors), min(key for key in tensors if "to_q.lora_down" in key)

    foreign = {f"x{name}": tensor for name, tensor in tensors.items()}
    assert f"does not fit random: 0 of its {count} tensors belong to a layer" in refusal(path, foreign, generator)
    partly = {name.replace("down_blocks_0", "down_blocks_7"): tensor for name, tensor in tensors.items()}
    missed = sum("down_blocks_7" in name for name in partly)
    assert f"{count - missed} of its {count} tensors" in refusal(path, partly, generator)
    assert "0 of its 0 tensors" in refusal(path, {}, generator)
    assert "changes weights (32, 24), and they are (32, 32) here" in refusal(
        path, tensors | {key: torch.ones(4, 24)}, generator
    )
    assert "is damaged: it has down (4, 32)" in refusal(path, {key: tensors[key]}, generator)
    assert "is damaged: it has" in refusal(path, tensors | {key: torch.ones(3, 32)}, generator)
    assert "it holds NaN, infinity or whole numbers" in refusal(
        path, tensors | {key.replace("lora_down.weight", "alpha"): torch.tensor(torch.nan)}, generator
    )
    layer = key.partition(".")[0]
    for kind, name in {
        "DoRA": "dora_scale",
        "GLoRA": "a1.weight",
        "OFT": "oft_blocks",
        "IA3": "on_input",
        "full weights": "diff",
    }.items():
        assert f"the LoRA a holds {kind}, which is not applied" in refusal(
            path, tensors | {f"{layer}.{name}": torch.ones(4)}, generator
        )
    both = {f"{layer}.hada_{name}": torch.ones(4, 4) for name in ("w1_a", "w1_b", "w2_a", "w2_b")}
    assert "is damaged: it has" in refusal(path, tensors | both, generator)
    for broken in (torch.full((4, 32), torch.inf), torch.ones(4, 32, dtype=torch.int8)):
        assert "it holds NaN, infinity or whole numbers" in refusal(path, tensors | {key: broken}, generator)
    peft = as_diffusers(loras.factors(unet, 1, ATTENTION), {}, ".lora_A", ".lora_B")
    assert "twice, in two layouts" in refusal(path, tensors | peft, generator)
    for said, answer in (
        ({"unet.lora_alpha": "four"}, "peft's settings of a LoRA are not as peft writes them"),
        ({"unet.r": 4, "unet.lora_alpha": 4, "unet.alpha_pattern": {"(a+)+$": 3}}, "peft's settings of a LoRA are not"),
        ({"unet.use_dora": True}, "holds DoRA by peft"),
        ({"unet.peft_type": "LOHA"}, "holds LOHA by peft"),
    ):
        assert answer in refusal(path, peft, generator, {"lora_adapter_metadata": json.dumps(said)})


def test_damaged_files_are_refused(generator: Generator, tmp_path: Path) -> None:
    whole = loras.write(tmp_path / "whole.safetensors", loras.kohya(loras.factors(networks(generator)[0], 1, ATTENTION)))
    content, path = whole.read_bytes(), tmp_path / "a.safetensors"
    length = int.from_bytes(content[:8], "little")

    def refused(content: bytes) -> str:
        path.write_bytes(content)
        with pytest.raises(WeightsError) as error:
            read(path, generator)
        return str(error.value)

    for end in (0, 4, 8, 100, 8 + length, len(content) // 2, len(content) - 1):
        assert "get it again" in refused(content[:end])
    assert "says that its header has 100 MB" in refused((100_000_000).to_bytes(8, "little") + content[8:])
    assert "its header has 18,446,744,073,710 MB" in refused(b"\xff" * 8 + content[8:])
    nested = b"[" * 200_000
    for header in (nested, b'{"a":1}', b"null", b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"\xff\xfe"):
        assert "is not a safetensors file" in refused(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match="cannot be read"):
        read(tmp_path / "missing.safetensors", generator)


@given(
    st.text(st.characters(exclude_characters="<>:", exclude_categories=("Cs",)), min_size=1).filter(
        lambda name: name.strip()
    ),
    *[st.floats(-10, 10).map(lambda weight: round(weight, 3))] * 2,
)
@settings(max_examples=cases(50))
def test_tags_are_read_as_they_are_written(name: str, text_weight: float, unet_weight: float) -> None:
    expected = LoraTag(name.strip(), text_weight, unet_weight)
    for form in (f"{name}:{text_weight}:{unet_weight}", f"{name}:unet={unet_weight}:te={text_weight}"):
        assert split_tags(f"a {as_tags((form,))}cat") == ("a cat", [expected])
    assert split_tags(f"a<LORA:{name}>") == ("a", [LoraTag(name.strip())])


def test_a_tag_that_cannot_be_read_is_an_error(with_loras: Generator) -> None:
    for lora in ("", ":1", "a:b", "a:1:2:3", "a:1e3", "a:nan", "a:dyn=4", "a:11", "a<b"):
        with pytest.raises(OptionError, match=r"the LoRA .*write|the LoRA .* is not written"):
            with_loras.text_to_image(PROMPT, loras=(lora,))
    with pytest.raises(OptionError, match="asks for 17 LoRAs; at most 16"):
        made(with_loras, PROMPT + "<lora:attention>" * 17)
    with pytest.raises(
        OptionError, match=r"unknown LoRA '../attention'; models/loras has: attention, people/my style \(v2\)"
    ):
        made(with_loras, f"{PROMPT}<lora:../attention:1>")


def test_the_file_says_which_lora_made_it(with_loras: Generator, tmp_path: Path) -> None:
    (result,) = with_loras.text_to_image(PROMPT, loras=("my style (v2):0.4",), **VALUES)
    infotext = Infotext.parse(result.infotext() or "")
    content = (with_loras.data / "models/loras/people/my style (v2).safetensors").read_bytes()
    digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()[:12]
    assert infotext.prompt == f"{PROMPT}<lora:my style (v2):0.4>"
    assert infotext.parameters["Lora hashes"] == f"my style (v2): {digest}"
    again = GenerationOptions.make(**values_from_settings(json.loads(json.dumps(result.settings()))))
    assert with_loras.text_to_image(options=again)[0].image.tobytes() == result.image.tobytes()
