"""`seesr upscale`, run in this process as its entry point runs it."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Run, encoded, hooked, photograph, sharing, swapped_profile, watching
from PIL import ExifTags, Image

from seesr import OptionError, OutputError
from seesr.cli import upscale as command
from seesr.result import UpscaleResult
from seesr.upscaler import Upscaler

QUICK = ("--scale", 2, "--steps", 1, "--seed", 7)


def test_help_does_not_wait_for_pytorch() -> None:
    heavy = {"torch", "diffusers", "transformers", "scipy"}
    code = f"import sys, seesr.cli; sys.exit(', '.join({heavy} & sys.modules.keys()) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_upscale_to_a_file_with_json_and_comparison(seesr: Run, photo_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "large.webp"
    outcome = seesr("upscale", photo_file, "-o", target, *QUICK, "--json", "--compare")
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert record["seed"] == 7
    assert record["output_size"] == [96, 80]
    assert record["seconds"].keys() >= {"denoise", "pixels"}
    assert Image.open(target).size == (96, 80)
    assert Image.open(tmp_path / "large_compare.png").size == (192, 80)
    assert "tiny (embedded)" in outcome.err


def test_both_halves_of_a_comparison_are_in_the_same_colours(seesr: Run, small_photo: Image.Image, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    small_photo.save(photo, icc_profile=swapped_profile())
    assert seesr("upscale", photo, "-o", tmp_path / "large.png", *QUICK, "--compare").code == 0
    pair = np.asarray(Image.open(tmp_path / "large_compare.png"), dtype=float)
    before, after = (half.mean(axis=(0, 1)) for half in np.split(pair, 2, axis=1))
    assert abs(before - after).max() < 2
    assert abs(before - before[::-1]).max() > 10, "exchanged colours would be seen"


def test_flags_of_saving_and_of_memory_are_heeded(seesr: Run, small_photo: Image.Image, tmp_path: Path) -> None:
    photo, output, exif = tmp_path / "photo.png", tmp_path / "out", Image.Exif()
    exif[ExifTags.Base.Artist] = "Somebody"
    small_photo.save(photo, exif=exif)
    loaded = list[Upscaler]()

    def load(*given: Any, **named: Any) -> Upscaler:
        loaded.append(Upscaler.load(*given, **named))
        return loaded[-1]

    assert seesr("upscale", photo, "-o", output, *QUICK, "--format", "webp", load=load).code == 0
    small = ("--format", "jpg", "--quality", 20, "--no-metadata", "--sequential")
    assert seesr("upscale", photo, "-o", output, *QUICK, *small, load=load).code == 0
    plain, changed = Image.open(output / "photo.webp"), Image.open(output / "photo.jpg")
    assert (plain.format, changed.format) == ("WEBP", "JPEG")
    assert plain.getexif()[ExifTags.Base.Artist] == "Somebody"
    assert ExifTags.Base.Artist not in changed.getexif()
    assert changed.quantization[0][0] > 16, "coarse"
    assert [one.engine.components.sequential for one in loaded] == [False, True]


def test_a_bad_file_among_many_is_reported_at_the_end(seesr: Run, photo_file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no picture")
    output = tmp_path / "out"
    outcome = seesr("upscale", tmp_path, "-o", output, *QUICK)
    assert outcome.code == 1
    assert "1 of 2 pictures done; 1 failed" in outcome.err
    assert "broken.jpg is not a picture" in outcome.err.splitlines()[-1]
    assert sorted(path.name for path in output.iterdir()) == ["photo.png"]


def test_when_all_pictures_fail_nothing_was_done(seesr: Run, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text("no picture")
    outcome = seesr("upscale", tmp_path, "-o", tmp_path / "out", *QUICK)
    assert outcome.code == 2
    assert "0 of 2 pictures done; 2 failed" in outcome.err


def test_memory_that_ran_out_on_the_way_is_said(seesr: Run, upscaler: Upscaler, photo_file: Path, tmp_path: Path) -> None:
    begun = list[str]()

    def enter(stage: str) -> None:
        begun.append(stage)
        if begun.count("clean") == 1 and stage == "resize":
            raise MemoryError("no memory for this")

    scarce = sharing(upscaler, stages=watching(enter))
    outcome = seesr("upscale", photo_file, "-o", tmp_path / "large.png", *QUICK, load=lambda *_, **__: scarce)
    assert outcome.code == 0, outcome.err
    assert "; memory did not suffice for whole; the memory plan " in outcome.err.splitlines()[-1]


def test_debugging_shows_the_way_to_an_error_and_changes_no_exit_code(
    seesr: Run, photo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEESR_DEBUG", "1")
    outcome = seesr("upscale", tmp_path / "nowhere.png", "-o", tmp_path / "x.png", *QUICK)
    assert outcome.code == 2
    assert "Traceback" in outcome.err
    assert "nowhere.png does not exist" in outcome.err.splitlines()[-1]


def test_pictures_that_go_together_fail_alone(seesr: Run, upscaler: Upscaler, photo_file: Path, tmp_path: Path) -> None:
    passes, in_pairs = list[int](), sharing(upscaler, preferred_batch=2)
    for name in ("a.png", "b.png", "d.png"):
        (tmp_path / name).write_bytes(photo_file.read_bytes())
    (tmp_path / "c.jpg").write_text("no picture")
    with hooked(upscaler.networks.denoiser.unet, lambda _, given: passes.append(len(given[0]))):
        outcome = seesr("upscale", tmp_path, "-o", tmp_path / "out", *QUICK, load=lambda *_, **__: in_pairs)
    assert outcome.code == 1
    assert "4 of 5 pictures done; 1 failed" in outcome.err
    assert passes == [2, 1, 1], "a and b, then d alone for c's sake, then photo"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "d.png", "photo.png"]


def test_what_fails_of_several_is_said_with_its_name_and_the_others_are_made(
    seesr: Run, upscaler: Upscaler, photo_file: Path, tmp_path: Path
) -> None:
    album, output = tmp_path / "album", tmp_path / "out"
    album.mkdir()
    for name in ("a.png", "b.png", "c.png", "d.png"):
        (album / name).write_bytes(photo_file.read_bytes())

    class Faulty(Upscaler):
        def upscale_many(self, images: list[Path], *given: Any, **named: Any) -> Any:
            if images[0].name == "a.png":
                raise OptionError("the result would be too large.")
            if images[0].name == "c.png":
                raise TypeError("a defect")
            return super().upscale_many(images, *given, **named)

    faulty = Faulty(upscaler.engine, upscaler.weights)
    outcome = seesr("upscale", album, "-o", output, "--json", *QUICK, load=lambda *_, **__: faulty)
    assert outcome.code == 1
    assert sorted(path.name for path in output.iterdir()) == ["b.png", "d.png"]
    told = [
        f"{album / 'a.png'}: the result would be too large.",
        f"{album / 'c.png'}: internal error (TypeError: a defect).",
    ]
    lines = outcome.err.splitlines()
    assert [line for line in lines if line.startswith("failed: ")] == [f"failed: {one}" for one in told]
    assert lines[-3:] == ["2 of 4 pictures done; 2 failed:", *(f"  {one}" for one in told)]
    records = [json.loads(line) for line in outcome.out.splitlines()]
    assert [record.get("error") for record in records] == [told[0], None, told[1], None]
    with pytest.raises(TypeError, match="a defect"):
        seesr("upscale", album / "c.png", "-o", tmp_path / "alone.png", *QUICK, load=lambda *_, **__: faulty)


def test_a_folder_is_not_its_own_output(seesr: Run, photo_file: Path, tmp_path: Path) -> None:
    outcome = seesr("upscale", photo_file.parent, "-o", photo_file.parent, "--format", "webp", *QUICK)
    assert outcome.code == 2
    assert "results would be inputs of the next run; give another folder" in outcome.err


def test_hidden_folders_and_those_of_network_drives_are_passed_over(seesr: Run, photo_file: Path, tmp_path: Path) -> None:
    album, output = tmp_path / "album", tmp_path / "out"
    for folder in ("may", ".thumbnails", "@eaDir/x.jpg", "#recycle", "#1", "@anna"):
        (album / folder).mkdir(parents=True)
        (album / folder / "a.jfif").write_bytes(photo_file.read_bytes())
    assert seesr("upscale", album, "-o", output, "--recursive", *QUICK).code == 0
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*.png")) == [
        "#1/a.png",
        "@anna/a.png",
        "may/a.png",
    ]


def test_folders_patterns_and_recursion(seesr: Run, photo_file: Path, tmp_path: Path) -> None:
    inner = tmp_path / "albums" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.png").write_bytes(photo_file.read_bytes())
    (tmp_path / "albums" / "b.png").write_bytes(photo_file.read_bytes())
    output = tmp_path / "out"
    assert seesr("upscale", tmp_path / "albums", "-o", output, "--recursive", *QUICK).code == 0
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*.png")) == ["b.png", "inner/a.png"]
    again = seesr("upscale", tmp_path / "albums" / "*.png", "-o", output, *QUICK)
    assert again.code == 2
    assert "b.png exists; use --overwrite or --skip-existing" in again.err
    assert seesr("upscale", tmp_path / "albums" / "*.png", "-o", output, "--skip-existing", *QUICK).code == 0


def test_a_folder_s_own_results_are_no_input(seesr: Run, photo_file: Path, tmp_path: Path) -> None:
    album = tmp_path / "album"
    (album / "may").mkdir(parents=True)
    for name in ("a.png", "may/b.png"):
        (album / name).write_bytes(photo_file.read_bytes())
    arguments = ("upscale", album, "-o", album / "x2", "--recursive", *QUICK)
    assert seesr(*arguments).code == 0
    made = sorted(path for path in album.rglob("*.png"))
    assert [str(path.relative_to(album)) for path in made] == ["a.png", "may/b.png", "x2/a.png", "x2/may/b.png"]
    (album / "x2" / "a.png").unlink()
    assert seesr(*arguments, "--skip-existing").code == 0
    assert sorted(path for path in album.rglob("*.png")) == made
    pattern = ("upscale", album / "**" / "*.png", "-o", album / "x2", "--recursive", *QUICK)
    assert seesr(*pattern, "--skip-existing").code == 0
    assert sorted(path.name for path in (album / "x2").iterdir()) == ["a.png", "b.png", "may"], "a pattern's names are flat"
    assert seesr("upscale", album / "x2", "-o", album / "x2" / "x4", *QUICK).code == 0, "unless they are named"


def test_patterns_take_brackets_of_folders_literally_and_suffixes_in_capitals(
    seesr: Run, photo_file: Path, tmp_path: Path
) -> None:
    for name in ("alb [2020]/a.png", "alb 2/other.png", "B.JPG", "x/alb [2020]/[c].png", "x/d1.PNG", "x/d2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photo_file.read_bytes())
    for index, (pattern, found) in enumerate(
        {
            "alb [2020]/*.png": ["a.png"],
            "*.jpg": ["B.png"],
            "*/alb [2020]/*.png": ["[c].png"],
            "x/d[13].png": ["d1.png"],
            "x/**/*.Png": ["[c].png", "d1.png", "d2.png"],
        }.items()
    ):
        output = tmp_path / f"out{index}"
        outcome = seesr("upscale", tmp_path / pattern, "-o", output, "--recursive", *QUICK)
        assert outcome.code == 0, outcome.err
        assert sorted(path.name for path in output.iterdir()) == found


def test_results_of_one_stem_are_named_after_their_inputs_suffixes(seesr: Run, photo_file: Path, tmp_path: Path) -> None:
    album, output = tmp_path / "album", tmp_path / "out"
    album.mkdir()
    for name in ("a.jpg", "a.png", "b.png"):
        (album / name).write_bytes(photo_file.read_bytes())
    assert seesr("upscale", album, "-o", output, *QUICK, "--format", "JPEG").code == 0
    assert sorted(path.name for path in output.iterdir()) == ["a_jpg.jpg", "a_png.jpg", "b.jpg"]
    named = ("--name", "{stem}_x{scale}-{seed}{suffix}")
    assert seesr("upscale", album, "-o", output, *QUICK, *named, "--format", "webp").code == 0
    assert sorted(path.name for path in output.glob("*.webp")) == ["a_jpg_x2-7.webp", "a_png_x2-7.webp", "b_x2-7.webp"]
    assert seesr("upscale", album, "-o", tmp_path / "new", *QUICK, "--name", "{source}_{stem}{suffix}").code == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["jpg_a.png", "png_a.png", "png_b.png"]


def test_in_place_keeps_originals_and_runs_once(
    seesr: Run, photo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    album, store = tmp_path / "album", tmp_path / "store.png"
    album.mkdir()
    before = photo_file.read_bytes()
    for path in (album / "a.png", album / "b.png", store):
        path.write_bytes(before)
        path.chmod(0o640)
    (album / "link.png").symlink_to(store)

    def without_hard_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", interrupted)
        assert seesr("upscale", album / "a.png", "--in-place", *QUICK).code == 130
    assert sorted(path.name for path in album.iterdir()) == ["a.orig.png", "a.png", "b.png", "link.png"]
    assert (album / "a.png").read_bytes() == (album / "a.orig.png").read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr("os.link", without_hard_links)
        assert seesr("upscale", album / "b.png", "--in-place", *QUICK).code == 0
    outcome = seesr("upscale", album, "--in-place", *QUICK, "--skip-existing")
    assert outcome.code == 0, outcome.err
    assert (album / "link.png").is_symlink()
    for large, original in (("a.png", "a.orig.png"), ("b.png", "b.orig.png"), ("../store.png", "../store.orig.png")):
        assert Image.open(album / large).size == (96, 80), large
        assert (album / original).read_bytes() == before
        assert {(album / name).stat().st_mode & 0o777 for name in (large, original)} == {0o640}
    again = seesr("upscale", album, "--in-place", *QUICK)
    assert (again.code, "a.orig.png exists: " in again.err) == (2, True)
    assert "nothing to do" in seesr("upscale", album, "--in-place", *QUICK, "--skip-existing").err
    assert seesr("upscale", photo_file, "--in-place", *QUICK, "--no-keep-original").code == 0
    assert Image.open(photo_file).size == (96, 80)
    assert not photo_file.with_name("photo.orig.png").exists()


def test_standard_input_and_output(photo_file: Path) -> None:
    command = [sys.executable, "-m", "seesr", "upscale", "-", "-o", "-", *map(str, QUICK), "--format", "jpeg"]
    done = subprocess.run(command, input=photo_file.read_bytes(), capture_output=True, timeout=180)
    assert done.returncode == 0, done.stderr
    made = Image.open(io.BytesIO(done.stdout))
    assert (made.format, made.size) == ("JPEG", (96, 80))
    assert b"standard output: 96x80, seed 7" in done.stderr
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(photo_file.read_bytes(), timeout=180)
    assert process.returncode == 2
    assert err.decode().splitlines()[-1] == "seesr: standard output cannot be written: Broken pipe."


def test_who_reads_only_the_first_record_gets_all_pictures(photo_file: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(photo_file.read_bytes())
    output = tmp_path / "out"
    command = [sys.executable, "-m", "seesr", "upscale", str(tmp_path), "-o", str(output), *map(str, QUICK), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["input"] == str(tmp_path / "a.png")
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert err.count("standard output was closed; the pictures are made all the same, their records are lost") == 1
    assert sorted(path.name for path in output.iterdir()) == ["a.png", "b.png", "photo.png"]


def test_a_pipe_is_read_once(seesr: Run, photo_file: Path, tmp_path: Path) -> None:
    pipe, target = tmp_path / "pipe", tmp_path / "x.png"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(photo_file.read_bytes()), daemon=True).start()
    outcome = seesr("upscale", pipe, "-o", target, *QUICK, "--compare")
    assert outcome.code == 2
    assert "pipe is not a regular file, so --compare cannot read it again; leave out --compare" in outcome.err
    assert seesr("upscale", pipe, "-o", target, *QUICK).code == 0
    Image.open(target).load()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.png", "-o", "x.png"], "nowhere.png does not exist"),
        (["photo.png", "-o", "x.png", "--scale", "0"], "scale is 0"),
        (["photo.png", "-o", "x.png", "--scale", "99"], "scale is 99"),
        (["photo.png", "-o", "x.png", "--steps", "0"], "steps is 0"),
        (["photo.png", "-o", "x.png", "--preset", "best"], "unknown preset 'best'"),
        (["photo.png", "-o", "x.doc"], "no known picture suffix"),
        (["photo.png", "-o", "x.png", "--format", "jpg"], "x.png does not match --format jpg"),
        (["photo.png", "-o", "new", "--name", "{stem}_{date}{suffix}"], "valid fields: {stem}, {source}, {suffix}"),
        (["photo.png", "-o", "new", "--name", "{stem.__class__}"], "valid fields: {stem}, {source}, {suffix}"),
        (["photo.png", "-o", "new", "--name", "{stem"], "expected '}' before end of string; write {{ and }} for braces"),
        (["photo.png", "-o", "new", "--name", "../{stem}.png"], "give the name of a file, without folders"),
        (["photo.png", "-o", "new", "--name", "{stem}{seed}.png"], "{seed} is not known before the work: give --seed"),
        (["photo.png", "-o", "new", "--name", "{stem}.gif"], "photo.gif: GIF is written for animations only"),
        (["photo.png", "-o", "x.png", "--name", "{stem}.png"], "x.png is a file's name, and --name gives another"),
        (["photo.png"], "give --output, or --in-place"),
        (["photo.png", "--in-place", "-o", "x.png"], "--output does not go together with --in-place; leave one out"),
        (["text.heic", "--in-place"], "text.heic cannot be replaced: only .png, "),
        (["photo.png", "./photo.png", "--in-place"], "photo.png and photo.png are the same file; give it once"),
        (["photo.png", "-o", "-", "--json"], "--json does not go together with --output -; leave one out"),
        (["photo.png", "photo_compare.png", "-o", "-"], "standard output holds one picture, and there are 2 inputs"),
        (["-", "-", "-o", "new"], "standard input (-) is given twice"),
        (["photo.png", "photo_compare.png", "-o", "text.png"], "text.png is a file; give a folder for 2 pictures"),
        (["photo.png", "-o", "photo.png", "--overwrite"], "is an input itself"),
        (["photo.png", "-o", "x.png", "--weights", "nothing"], "nothing is not a weights folder"),
        (["photo.png", "-o", "x.png", "--device", "warp"], "device 'warp' is not available"),
        (["photo.png", "-o", "x.png", "--dtype", "fp16"], "dtype is 'fp16'; use auto, float32, bfloat16, float16"),
        (["photo.png", "-o", "x.png", "--memory-limit", "4XB"], "the memory limit is '4XB'"),
        (["photo_compare.png", "-o", "photo.png", "--compare", "--overwrite"], "photo_compare.png is an input itself"),
        (["photo.png", "photo_compare.png", "-o", "new", "--compare"], "would both become new/photo_compare.png"),
        (["photo.png", "photo_compare.png", "-o", ".", "--overwrite"], "photo.png is an input itself"),
        (["p" * 300 + ".png", "-o", "x.png"], "cannot be read: File name too long"),
        (["photo.png", "-o", "p" * 300 + ".png"], "cannot be written: File name too long"),
        (["empty.png", "-o", "x.png"], "empty.png is empty"),
        (["text.png", "-o", "x.png"], "text.png is not a picture"),
        (["cut.png", "-o", "x.png"], "cut.png is damaged or cut short"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    seesr: Run, photo_file: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(photo_file.parent)
    Path("photo_compare.png").write_bytes(photo_file.read_bytes())
    Path("empty.png").touch()
    Path("text.png").write_text("hello")
    Path("text.heic").write_text("hello")
    Path("cut.png").write_bytes(photo_file.read_bytes()[:2000])
    before = sorted(Path().iterdir())
    outcome = seesr("upscale", *arguments)
    assert outcome.code == 2
    message = [line for line in outcome.err.splitlines() if line.startswith("seesr: ")]
    assert len(message) == 1
    assert words in message[0]
    assert "Traceback" not in outcome.err
    assert sorted(Path().iterdir()) == before


def test_an_unwritable_place_is_one_sentence(seesr: Run, photo_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = seesr("upscale", photo_file, "-o", tmp_path / "file" / "x.png", *QUICK)
    assert outcome.code == 2
    assert "cannot be written" in outcome.err


def test_what_cannot_be_written_or_read_is_said_before_the_work(
    seesr: Run, photo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> Upscaler:
        pytest.fail("the models are not needed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        outcome = seesr("upscale", photo_file, "-o", tmp_path / "new" / "x.png", load=load)
        assert outcome.code == 2
        assert f"new cannot be written to: {tmp_path} is not a writable folder" in outcome.err

    def scandir(path: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    outcome = seesr("upscale", tmp_path, "-o", tmp_path / "out", load=load)
    assert outcome.code == 2
    assert f"{tmp_path} cannot be read: Permission denied" in outcome.err


def test_a_file_that_appears_meanwhile_is_kept(seesr: Run, upscaler: Upscaler, photo_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.png"
    slow = sharing(upscaler, stages=watching(lambda stage: target.write_text("another's")))
    outcome = seesr("upscale", photo_file, "-o", target, *QUICK, load=lambda *_, **__: slow)
    assert outcome.code == 2
    assert "x.png was created in the meantime and was not replaced" in outcome.err
    assert target.read_text() == "another's"


def test_a_full_disk_ends_the_work_and_a_comparison_can_be_resumed(
    seesr: Run, photo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(photo_file.read_bytes())
    save_on_success, full = UpscaleResult.save_on_success, True

    @contextmanager
    def limited(result: UpscaleResult, path: Path, *arguments: Any) -> Iterator[None]:
        if path.name == "b.png" and full:
            raise OutputError(f"{path} cannot be written: No space left on device.") from OSError(errno.ENOSPC, "full")
        with save_on_success(result, path, *arguments):
            yield

    monkeypatch.setattr(UpscaleResult, "save_on_success", limited)
    arguments = ("upscale", folder, "-o", output, *QUICK, "--compare")
    outcome = seesr(*arguments)
    assert outcome.code == 1
    assert "1 of 3 pictures done; 1 failed" in outcome.err
    assert "1 were not tried" in outcome.err
    assert sorted(path.name for path in output.iterdir()) == ["a.png", "a_compare.png"]
    full = False
    (output / "b_compare.png").write_text("of a picture whose result was not finished")
    assert seesr(*arguments, "--skip-existing").code == 0
    assert len(list(output.iterdir())) == 6
    Image.open(output / "b_compare.png").load()
    before = {path: path.read_bytes() for path in output.iterdir()}

    def unwritable(*_: Any) -> None:
        raise OutputError("the comparison cannot be written: No space left on device.")

    monkeypatch.setattr(command, "save", unwritable)
    again = ("upscale", folder / "b.png", "-o", output, *QUICK, "--compare", "--overwrite", "--sharpen", 2)
    assert seesr(*again).code == 2
    full = True
    assert seesr(*again).code == 2
    assert {path: path.read_bytes() for path in output.iterdir()} == before


def read_all(terminal: int) -> None:
    """What nobody reads would stop who writes; at its end Linux says that it is an error."""
    with suppress(OSError):
        while os.read(terminal, 4096):
            pass


def test_records_go_to_standard_output_whatever_errors_go_to(photo_file: Path, tmp_path: Path) -> None:
    terminal, errors = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "seesr",
        "upscale",
        str(photo_file),
        "-o",
        str(tmp_path / "x.png"),
        "--steps",
        "1",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    os.close(errors)
    reader = threading.Thread(target=read_all, args=(terminal,))
    reader.start()
    try:
        out, _ = process.communicate(timeout=180)
    finally:
        process.kill()
        reader.join()
        os.close(terminal)
    assert process.returncode == 0
    assert json.loads(out)["output"] == str(tmp_path / "x.png")


def test_who_ends_it_finds_finished_pictures_whole(tmp_path: Path, small_photo: Image.Image) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "0.png").write_text("no picture")
    for index in range(40):
        small_photo.save(source / f"{index:02}.png")
    command = [sys.executable, "-m", "seesr", "upscale", str(source), "-o", str(output), "--steps", "1"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
    )
    deadline = time.monotonic() + 180
    while not (output / "00.png").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # it is handled as Ctrl-C is
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "finished pictures are complete" in err
    assert "1 failed:" in err
    made = list(output.iterdir())
    assert 1 <= len(made) < 40
    for path in made:
        Image.open(path).load()
        assert path.suffix == ".png"


def animation(kind: str, count: int = 3) -> bytes:
    """Frames of 24x20 pixels, each of another photograph's part."""
    frames = [photograph("chelsea.png", (150 + 9 * number, 80, 174 + 9 * number, 100)) for number in range(count)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **{} if kind == "TIFF" else {"duration": 80})


def test_all_frames_of_what_has_several(seesr: Run, photo_file: Path, tmp_path: Path) -> None:
    album, output = tmp_path / "album", tmp_path / "out"
    album.mkdir()
    (album / "a.gif").write_bytes(animation("GIF"))
    (album / "b.tif").write_bytes(animation("TIFF", 2))
    (album / "c.png").write_bytes(photo_file.read_bytes())
    outcome = seesr("upscale", album, "-o", output, "--frames", "all", "--json", *QUICK)
    assert outcome.code == 1
    records = [json.loads(line) for line in outcome.out.splitlines()]
    assert [record.get("frames") for record in records] == [3, None, 1]
    assert "PNG holds one picture, and the input has 2 pages; write TIFF" in records[1]["error"]
    moving = Image.open(output / "a.png")
    assert (moving.n_frames, moving.size, moving.info["duration"], moving.info["seesr"].count('"seed": 7')) == (
        3,
        (48, 40),
        80,
        1,
    )
    alone = seesr("upscale", photo_file, "-o", tmp_path / "alone.png", *QUICK)
    assert alone.code == 0
    assert (tmp_path / "alone.png").read_bytes() == (output / "c.png").read_bytes(), "as without --frames"
    pages = seesr("upscale", album, "-o", output, "--frames", "all", "--format", "tiff", *QUICK)
    assert "b.tiff: 48x40, 2 frames, seed 7" in pages.err
    assert [Image.open(output / name).n_frames for name in ("a.tiff", "b.tiff", "c.tiff")] == [3, 2, 1]
    again = seesr("upscale", album, "-o", output, "--frames", "all", "--format", "tiff", "--skip-existing", *QUICK)
    assert "nothing to do" in again.err


def test_an_animation_in_place_and_through_pipes(seesr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = tmp_path / "a.gif", animation("GIF", 2)
    path.write_bytes(content)
    assert "a.gif cannot be replaced: only .png, " in seesr("upscale", path, "--in-place", *QUICK).err
    outcome = seesr("upscale", path, "--in-place", "--frames", "all", *QUICK)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "a.orig.gif").read_bytes() == content
    made = Image.open(path)
    assert (made.n_frames, made.size, made.info["duration"]) == (2, (48, 40), 80)

    class Binary:
        def __init__(self, content: bytes = b"") -> None:
            self.buffer = io.BytesIO(content)

        def isatty(self) -> bool:
            return False

        def flush(self) -> None:
            pass

        def write(self, text: str) -> None:
            raise AssertionError(text)

    with monkeypatch.context() as patch:
        given, taken = Binary(content), Binary()
        patch.setattr(sys, "stdin", given)
        patch.setattr(sys, "stdout", taken)
        piped = seesr("upscale", "-", "-o", "-", "--frames", "all", "--format", "gif", *QUICK)
    assert "standard output: 48x40, 2 frames" in piped.err
    assert taken.buffer.getvalue() == path.read_bytes()


def test_a_later_frame_that_is_damaged_leaves_nothing(seesr: Run, tmp_path: Path) -> None:
    content = animation("GIF")
    (tmp_path / "cut.gif").write_bytes(content[: len(content) - 200])
    outcome = seesr("upscale", tmp_path / "cut.gif", "-o", tmp_path / "out" / "x.png", "--frames", "all", *QUICK)
    assert outcome.code == 2
    assert "frame 3 of " in outcome.err.splitlines()[-1]
    assert "cut.gif is damaged or cut short" in outcome.err.splitlines()[-1]
    assert not list((tmp_path / "out").iterdir())


def test_the_first_frame_alone_says_how_to_get_all(seesr: Run, tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(animation("GIF"))
    outcome = seesr("upscale", tmp_path / "a.gif", "-o", tmp_path / "a.png", *QUICK)
    assert "; several frames, the first is used; --frames all takes all of them" in outcome.err
    assert not getattr(Image.open(tmp_path / "a.png"), "is_animated", True)
    both = seesr("upscale", tmp_path / "a.gif", "-o", tmp_path / "b.png", "--frames", "all", "--compare", *QUICK)
    assert "--compare does not go together with --frames all; leave one out" in both.err
    wrong = seesr("upscale", tmp_path / "a.gif", "-o", tmp_path / "b.png", "--frames", "last", *QUICK)
    assert "frames is 'last'" in wrong.err
    gif = seesr("upscale", tmp_path / "a.gif", "-o", tmp_path / "b.gif", *QUICK)
    assert "b.gif: GIF is written for animations only; take all frames, or write PNG" in gif.err
