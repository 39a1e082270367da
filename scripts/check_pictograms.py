"""How well the embedded text-to-image checkpoint obeys its prompts.

    ./scripts/start_seesr.sh python python -m scripts.check_pictograms --work WORK --output SHEETS

WORK is the training's, or an empty folder: the pictures are fetched with npm then, which needs `pip install resvg-py` too.

The judge is a nearest neighbour search among the pictures of everything that has one in all three styles, of which the
vocabulary is a part, in the features of EfficientNet-Lite0 (the encoder of the embedded tagger). Seeds are fixed. Prints a
table, with the same figures for the autoencoder's own reconstructions as the ceiling, and writes sheets of pictures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import cycle
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from scripts.training.pictogram_pictures import (
    LINES,
    SIDE,
    STYLES,
    Pictogram,
    fetched_pictograms,
)
from scripts.training.pictogram_scenes import COLOURS, HUES, Scene, Scenes, draw, main_hue
from seesr.tagging.ram import IMAGENET_MEAN, IMAGENET_STD, load_ram
from seesr.weights.manifest import beside_package

JUDGE_SIDE = 224
BATCH = 20
STEPS, GUIDANCE = 20, 5.0
SHEET = 64


@dataclass(frozen=True)
class Verdict:
    """What the judge finds of one picture, nearest first."""

    pictograms: list[Pictogram]
    similarities: list[float]

    def is_first(self, thing: str) -> bool:
        return self.pictograms[0].thing == thing

    def is_near(self, thing: str) -> bool:
        """Whether it is among the five nearest."""
        return thing in [pictogram.thing for pictogram in self.pictograms[:5]]


class Judge:
    """Finds the pictograms that are nearest to pictures.

    Args:
        gallery: those to find.
        detail: the side in pixels to which both are reduced before they are compared.
    """

    def __init__(self, gallery: list[Pictogram], detail: int = SIDE) -> None:
        self.gallery, self.detail = gallery, detail
        self.encoder = load_ram(beside_package("tiny") / "ram").visual_encoder
        features = self._features(np.stack([draw(Scene((pictogram,))) for pictogram in gallery]))
        self.mean = features.mean(dim=0)
        self.features = F.normalize(features - self.mean, dim=1)

    def __call__(self, pictures: np.ndarray) -> list[Verdict]:
        """The verdicts on uint8 pictures `(N, H, W, 3)`."""
        similarities = F.normalize(self._features(pictures) - self.mean, dim=1) @ self.features.T
        values, places = similarities.topk(min(5, len(self.gallery)), dim=1)
        return [
            Verdict([self.gallery[i] for i in row], near) for row, near in zip(places.tolist(), values.tolist(), strict=True)
        ]

    @torch.no_grad()
    def _features(self, pictures: np.ndarray) -> Tensor:
        found = list[Tensor]()
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        for part in torch.from_numpy(pictures).split(64):
            colours = part.movedim(-1, 1).float() / 255
            if colours.shape[-1] != self.detail:
                colours = F.interpolate(colours, self.detail, mode="bicubic", antialias=True)
            colours = F.interpolate(colours, JUDGE_SIDE, mode="bicubic", antialias=True).clamp(0, 1)
            found.append(self.encoder((colours - mean) / deviation)[:, 0])
        return torch.cat(found)


@dataclass(frozen=True)
class Draughtsman:
    """Draws prompts with a checkpoint."""

    folder: Path
    steps: int = STEPS

    @cached_property
    def pipe(self) -> StableDiffusionPipeline:
        pipe = StableDiffusionPipeline.from_pretrained(self.folder, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def __call__(
        self,
        prompts: Sequence[str],
        steps: int | None = None,
        guidance: float = GUIDANCE,
        negative: str = "",
        first_seed: int = 0,
        lora: float | None = None,
    ) -> np.ndarray:
        """Pictures, uint8 `(N, SIDE, SIDE, 3)`, of prompt number n with the seed `first_seed` + n."""
        made = list[np.ndarray]()
        for first in range(0, len(prompts), BATCH):
            part = list(prompts[first : first + BATCH])
            seeds = [torch.Generator().manual_seed(first_seed + first + number) for number in range(len(part))]
            images = self.pipe(
                part,
                negative_prompt=[negative] * len(part),
                num_inference_steps=steps or self.steps,
                guidance_scale=guidance,
                generator=seeds,
                output_type="np",
                cross_attention_kwargs=None if lora is None else {"scale": lora},
            ).images
            made.append((images * 255).round().astype(np.uint8))
        return np.concatenate(made)


def check_pictograms(
    work: Annotated[Path, typer.Option(help="The training's folder, or an empty one.", file_okay=False)],
    output: Annotated[Path, typer.Option(help="Folder for the sheets and figures.json.", file_okay=False)],
    checkpoint: Annotated[Path, typer.Option(help="Folder of the checkpoint.", exists=True)] = Path("weights/pictograms"),
    lora: Annotated[Path | None, typer.Option(help="The LoRA for line drawings; not judged unless given.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A quarter of the prompts.")] = False,
    steps: int = STEPS,
    seed: int = 0,
) -> None:
    """The figures of a checkpoint, and its sheets."""
    output.mkdir(parents=True, exist_ok=True)
    known = fetched_pictograms(work, "pictures.npz")
    everything = fetched_pictograms(work, "everything.npz", everything=True)
    share = 4 if quick else 1
    figures = Figures(known, everything, Draughtsman(checkpoint, steps), output, share, np.random.default_rng(seed))
    figures.measure()
    if lora is not None:
        figures.measure_lora(lora, fetched_pictograms(work, "lines.npz", styles={LINES: "line drawing"}))
    figures.report()


class Figures:
    """Measures a checkpoint; `share` is what the numbers of prompts are divided by."""

    def __init__(
        self,
        known: list[Pictogram],
        everything: list[Pictogram],
        artist: Draughtsman,
        output: Path,
        share: int,
        rng: np.random.Generator,
    ) -> None:
        self.known, self.artist, self.output, self.share, self.rng = known, artist, output, share, rng
        self.judge, self.everything = Judge(everything), everything
        scenes = Scenes(known)
        self.held_out, self.shown = scenes.held_out, scenes.shown
        self.rows = list[tuple[str, str, str, str]]()
        self.by_name = {(p.thing, p.style): p for p in known}

    def measure(self) -> None:
        """All but the LoRA."""
        for step in (
            self.names,
            self.held_out_pictures,
            self.backgrounds,
            self.pairs,
            self.colours,
            self.steering,
            self.speed,
            self.nonsense,
        ):
            step()
            print(*self.rows[-1], sep=" | ", flush=True)

    def names(self) -> None:
        chosen = self._some(self.shown, 300)
        prompts = [f"{p.thing}, {p.style}" for p in chosen]
        made, ceiling = self.artist(prompts), self._reconstructed([Scene((p,)) for p in chosen])
        found, best = self.judge(made), self.judge(ceiling)
        first, near, style = (
            partial(self._count, found, best, chosen, rule)
            for rule in (
                lambda v, p: v.is_first(p.thing),
                lambda v, p: v.is_near(p.thing),
                lambda v, p: v.pictograms[0].style == p.style,
            )
        )
        self._row(f"{len(chosen)} prompts NAME, STYLE: right thing first", first(), "75 %")
        self._row("within five", near(), "90 %")
        self._row("right style", style(), "95 %")
        truth = np.stack([draw(Scene((p,))) for p in chosen]).astype(np.float32)
        errors = ((ceiling - truth) / 255) ** 2
        self.rows.append(("reconstructions", f"{-10 * np.log10(errors.mean(axis=(1, 2, 3))).mean():.1f} dB", "30 dB", ""))
        self._sheet("known", made)
        few = chosen[: 100 // self.share]
        fast = self._fast([f"{p.thing}, {p.style}" for p in few])
        both = [
            self._share(judged[: len(few)], few, lambda v, p: v.is_near(p.thing)) for judged in (self.judge(fast), found)
        ]
        self.rows.append(
            (
                f"8 steps (DPM++ 2M), {len(few)} prompts: within five",
                f"{both[0]:.0%}",
                f"{self.artist.steps} steps: {both[1]:.0%}",
                "",
            )
        )

    def held_out_pictures(self) -> None:
        chosen = [self.by_name[pair] for pair in sorted(self.held_out.pictures)][:: self.share]
        made, scenes = self.artist([f"{p.thing}, {p.style}" for p in chosen]), [Scene((p,)) for p in chosen]
        found = self.judge(made)
        near = self._count(found, self.judge(self._reconstructed(scenes)), chosen, lambda v, p: v.is_near(p.thing))
        self._row(f"{len(chosen)} held-out (thing, style): within five", near, "60 %")
        self._sheet("held_out", made)
        nearest = Judge(self.shown)(made)
        near_first = sorted(range(len(made)), key=lambda i: -nearest[i].similarities[0])
        alike = np.array([verdict.similarities[0] for verdict in nearest])
        self.rows.append(
            (
                "held-out prompts: similarity to the nearest training picture",
                f"median {np.median(alike):.2f}",
                f"highest {alike.max():.2f}",
                "",
            )
        )
        both = [[made[i], draw(Scene((nearest[i].pictograms[0],)))] for i in near_first[:5]]
        Image.fromarray(np.concatenate([np.concatenate(pair, axis=0) for pair in both], axis=1)).save(
            self.output / "nearest.png"
        )

    def backgrounds(self) -> None:
        names = [name for name in COLOURS if name != "white"]
        chosen = self._some(self.known, 100)
        asked = [names[i % len(names)] for i in range(len(chosen))]
        made = self.artist([f"{p.thing}, {p.style}, {colour} background" for p, colour in zip(chosen, asked, strict=True)])
        right = np.mean([background_colour(picture) == colour for picture, colour in zip(made, asked, strict=True)])
        self._row(f"{len(chosen)} prompts with a background: right colour", (float(right), 1.0), "95 %")
        self._sheet("backgrounds", made)

    def pairs(self) -> None:
        judge = Judge(self.everything, SIDE // 2)
        things = sorted({p.thing for p in self.known})
        held_out = [tuple(sorted(pair)) for pair in self.held_out.pairs]
        drawn = [tuple(things[int(i)] for i in self.rng.choice(len(things), size=2, replace=False)) for _ in range(100)]
        both = {"two things": (drawn, "60 %"), "held-out two things": (sorted(held_out), "45 %")}
        for title, (chosen, wanted) in both.items():
            asked = chosen[:: self.share]
            styles = [word for word, _ in zip(cycle(STYLES.values()), asked, strict=False)]
            made = self.artist([f"{a} and {b}, {style}" for (a, b), style in zip(asked, styles, strict=True)])
            scenes = [
                Scene((self.by_name[a, style], self.by_name[b, style])) for (a, b), style in zip(asked, styles, strict=True)
            ]
            found = [
                np.mean([left.is_near(a) and right.is_near(b) for (a, b), left, right in zip(asked, *halves, strict=True)])
                for halves in (
                    [judge(half) for half in _halves(pictures)] for pictures in (made, self._reconstructed(scenes))
                )
            ]
            self._row(f"{len(asked)} {title}: both within five", (float(found[0]), float(found[1])), wanted)
            self._sheet(title.replace(" ", "_"), made)

    def colours(self) -> None:
        chosen = sorted(self.held_out.colours)[: 30 // self.share or 1]
        made = self.artist([f"{colour} {thing}, 3d" for colour, thing in chosen])
        right = [
            hue is not None and abs((hue - HUES[colour] + 180) % 360 - 180) < 30
            for (colour, _), hue in zip(chosen, map(seen_hue, made), strict=True)
        ]
        self._row(f"{len(chosen)} held-out COLOUR THING: right hue", (float(np.mean(right)), 1.0), "-")
        self._sheet("colours", made)

    def steering(self) -> None:
        chosen = [self.known[int(i)] for i in self.rng.choice(len(self.known), size=60 // self.share)]
        prompts = [p.thing for p in chosen]
        shares = [
            np.mean([v.pictograms[0].style == "3d" for v in self.judge(self.artist(prompts, negative=negative))])
            for negative in ("", "3d")
        ]
        self.rows.append(
            ("of prompts without a style 3d", f"{shares[0]:.0%}", f"with the negative prompt 3d: {shares[1]:.0%}", "")
        )
        row, named = list[np.ndarray](), [f"{p.thing}, {p.style}" for p in chosen]
        for guidance in (1.0, 4.0, 8.0):
            made = self.artist(named, guidance=guidance)
            right = self._share(self.judge(made), chosen, lambda v, p: v.is_near(p.thing))
            self.rows.append((f"guidance {guidance:g}, {len(chosen)} prompts: within five", f"{right:.0%}", "", ""))
            row.append(np.concatenate(list(made[:8]), axis=1))
        Image.fromarray(np.concatenate(row)).save(self.output / "guidance.png")

    def speed(self) -> None:
        self.artist(["fox, 3d"])
        began = time.perf_counter()
        self.artist(["fox, 3d"])
        self.rows.append(
            (f"one picture, {self.artist.steps} steps with guidance", f"{time.perf_counter() - began:.2f} s", "1.5 s", "")
        )

    def nonsense(self) -> None:
        self._sheet(
            "nonsense",
            self.artist(["", "qwzx vlorp", "the theory of justice", "asdf, 3d", "4711", "!!!", "blorb, flat", "xx"]),
        )
        self.rows.append(("prompts without a known word", "see nonsense.png", "", ""))

    def measure_lora(self, lora: Path, lines: list[Pictogram]) -> None:
        """With the LoRA at 0.8: the right thing among the line drawings, and how little colour there is; at 0, no change."""
        judge = Judge(lines)
        chosen = self._some(lines, 100)
        prompts = [p.thing for p in chosen]
        before = self.artist(prompts)
        self.artist.pipe.load_lora_weights(lora.parent, weight_name=lora.name)
        made, none = self.artist(prompts, lora=0.8), self.artist(prompts[:8], lora=0.0)
        self.artist.pipe.unload_lora_weights()
        found = judge(made)
        ceiling = judge(self._reconstructed([Scene((p,)) for p in chosen]))
        self._row(
            f"LoRA at 0.8, {len(chosen)} prompts: within five among line drawings",
            self._count(found, ceiling, chosen, lambda v, p: v.is_near(p.thing)),
            "60 %",
        )
        self._row("first", self._count(found, ceiling, chosen, lambda v, p: v.is_first(p.thing)), "-")
        spread = [float((pictures.max(axis=-1).astype(int) - pictures.min(axis=-1)).mean()) for pictures in (made, before)]
        self.rows.append(
            (
                "colour left by the LoRA (mean of largest less smallest channel)",
                f"{spread[0]:.1f}",
                f"without: {spread[1]:.1f}",
                "",
            )
        )
        self.rows.append(
            ("LoRA at 0: largest change of a value", str(int(np.abs(none.astype(int) - before[:8]).max())), "0", "")
        )
        self._sheet("lora", made)

    def report(self) -> None:
        """Prints the table and writes it."""
        table = Table("what", "now", "wanted", "ceiling")
        for row in self.rows:
            table.add_row(*row)
        Console(width=140).print(table)
        (self.output / "figures.json").write_text(json.dumps(self.rows, indent=1) + "\n")

    def _some(self, among: list[Pictogram], number: int) -> list[Pictogram]:
        """As many as there are or `number`, divided by the share, each once."""
        size = min(len(among), number // self.share)
        return [among[int(i)] for i in self.rng.choice(len(among), size=size, replace=False)]

    def _row(self, title: str, shares: tuple[float, float], wanted: str) -> None:
        self.rows.append((title, f"{shares[0]:.1%}", wanted, f"{shares[1]:.1%}"))

    def _count(
        self,
        found: list[Verdict],
        ceiling: list[Verdict],
        asked: list[Pictogram],
        rule: Callable[[Verdict, Pictogram], bool],
    ) -> tuple[float, float]:
        return self._share(found, asked, rule), self._share(ceiling, asked, rule)

    @staticmethod
    def _share(found: list[Verdict], asked: list[Pictogram], rule: Callable[[Verdict, Pictogram], bool]) -> float:
        return float(np.mean([rule(verdict, pictogram) for verdict, pictogram in zip(found, asked, strict=True)]))

    def _fast(self, prompts: list[str]) -> np.ndarray:
        pipe = self.artist.pipe
        usual = pipe.scheduler
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(usual.config)
        made = self.artist(prompts, steps=8)
        pipe.scheduler = usual
        return made

    @torch.no_grad()
    def _reconstructed(self, scenes: list[Scene]) -> np.ndarray:
        """The scenes as the autoencoder gives them back."""
        vae, made = self.artist.pipe.vae, list[np.ndarray]()
        for part in torch.from_numpy(np.stack([draw(scene) for scene in scenes])).split(BATCH):
            back = vae.decode(vae.encode(part.movedim(-1, 1).float() / 127.5 - 1).latent_dist.mode()).sample
            made.append(((back.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).numpy())
        return np.concatenate(made)

    def _sheet(self, name: str, pictures: np.ndarray) -> None:
        """Writes up to `SHEET` pictures, eight in a row."""
        shown = list(pictures[:SHEET])
        shown += [np.full_like(shown[0], 255)] * (-len(shown) % 8)
        rows = [np.concatenate(shown[first : first + 8], axis=1) for first in range(0, len(shown), 8)]
        Image.fromarray(np.concatenate(rows)).save(self.output / f"{name}.png")


def background_colour(picture: np.ndarray) -> str:
    """The name in `COLOURS` that is nearest to the median of the four corners of a uint8 picture `(H, W, 3)`."""
    corners = np.concatenate(
        [picture[y, x].reshape(-1, 3) for y in (slice(0, 8), slice(-8, None)) for x in (slice(0, 8), slice(-8, None))]
    )
    middle = np.median(corners, axis=0)
    return min(COLOURS, key=lambda name: float(np.square(middle - COLOURS[name]).sum()))


def seen_hue(picture: np.ndarray) -> float | None:
    """The main hue of what is not white in a uint8 picture `(H, W, 3)`."""
    seen = (picture.min(axis=-1) < 225).astype(np.uint8) * 255
    return main_hue(np.concatenate([picture, seen[..., None]], axis=-1))


def _halves(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The squares in which the left and the right of two things are."""
    quarter = SIDE // 4
    middle = pictures[:, quarter : 3 * quarter]
    return np.ascontiguousarray(middle[:, :, : 2 * quarter]), np.ascontiguousarray(middle[:, :, 2 * quarter :])


if __name__ == "__main__":
    typer.run(check_pictograms)
