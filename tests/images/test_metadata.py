"""All metadata of an input comes back in every format, as far as it is true of the result and the format holds it."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import encoded, is_close, photo_in_mode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

from seesr import Upscaler
from seesr.images.metadata import Metadata, iptc, read_infotext, read_settings, xmp
from seesr.images.metadata.ifd import Exif, Field
from seesr.images.picture import Picture
from seesr.images.png import PNG_SIGNATURE, chunks
from seesr.images.read import read_picture
from seesr.images.save import save
from seesr.options import Limits, SaveOptions

LIMITS = Limits()
SUFFIXES = (".jpg", ".png", ".webp", ".tiff", ".avif", ".jxl")
OURS = {"seed": 7, "version": "x", "weights": "tiny"}
PACKET = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="uuid:1"'
    ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:own="https://example.org/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
    ' xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"'
    ' xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"'
    ' xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#"'
    ' tiff:ImageWidth="40" tiff:Orientation="1" own:note="two&#10;lines" crs:CropTop="0.1" GPano:FullPanoWidthPixels="80">'
    "<GPano:CroppedAreaImageWidthPixels>40</GPano:CroppedAreaImageWidthPixels>"
    "<dc:subject><rdf:Bag><rdf:li>Käse</rdf:li><rdf:li>&lt;b&gt;&#13;\n</rdf:li></rdf:Bag></dc:subject>"
    '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="40" stDim:h="30" stDim:unit="pixel"/>'
    "</mwg-rs:Regions></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
).encode()
IPTC = b"\x1c\x02\x19\x00\x03cat" + b"\x1c\x03\x14\x00\x02\x00\x28" + b"\x1c\x02\x50\x00\x05Emile"
IPTC_KEPT = b"\x1c\x02\x19\x00\x03cat\x1c\x02\x50\x00\x05Emile"


def rich_exif() -> bytes:
    exif = Exif()
    exif.base = {
        ExifTags.Base.XPKeywords: Field(1, "Katze".encode("utf-16-le")),
        0x4746: exif.numbers(3, [4]),  # Rating
        ExifTags.Base.Software: Field(2, b"other\0"),
        ExifTags.Base.Orientation: exif.numbers(3, [1]),
        ExifTags.Base.XResolution: exif.rational(150),
        ExifTags.Base.YResolution: exif.rational(150),
    }
    exif.exif = {
        ExifTags.Base.UserComment: Field(7, b"ASCII\0\0\0fine light"),
        ExifTags.Base.ExifVersion: Field(7, b"0232"),
        ExifTags.Base.FocalPlaneXResolution: exif.rational(1000),
        ExifTags.Base.ExifImageWidth: exif.numbers(4, [40]),
        ExifTags.Base.MakerNote: Field(7, b"offsets"),
        ExifTags.Base.ExposureBiasValue: Field(10, struct.pack("<ll", -1, 3)),
    }
    exif.gps = {ExifTags.GPS.GPSLatitudeRef: Field(2, b"N\0")}
    return exif.content()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">HH", marker, len(content) + 2) + content


def rich_jpeg() -> bytes:
    content = encoded(photo_in_mode(40, 30), "JPEG", exif=rich_exif(), xmp=PACKET, comment="of the file", dpi=(150, 150))
    return content[:2] + segment(0xFFED, iptc.PHOTOSHOP_PREFIX + iptc.to_resources(IPTC)) + content[2:]


def rich_png() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a cat\nSteps: 2")
    text.add_text("workflow", '{"nodes": []}', zip=True)
    text.add_itxt("Title", "Katze, 猫", lang="de", tkey="Titel")
    text.add_text("Author", "Émile")
    text.add_text("Comment", "of the file")
    text.add_text("Software", "other")
    text.add_text("seesr", '{"seed": 1}')
    text.add_itxt("XML:com.adobe.xmp", PACKET.decode())
    text.add_text("Raw profile type iptc", iptc.to_raw_profile("IPTC profile", iptc.to_resources(IPTC)), zip=True)
    return encoded(photo_in_mode(40, 30), "PNG", pnginfo=text, exif=rich_exif(), dpi=(150, 150))


def rich_tiff() -> bytes:
    buffer = io.BytesIO()
    metadata = Metadata(exif=rich_exif(), xmp=PACKET, iptc=IPTC, dots_per_inch=(150.0, 150.0))
    save(photo_in_mode(40, 30), buffer, SaveOptions(format="tiff"), metadata=metadata)
    return buffer.getvalue()


def written(picture: Picture, path: Path, metadata: Metadata | None = None) -> tuple[Picture, list[str]]:
    """The picture's metadata in a file, twice as large, and read again."""
    width, height = picture.rgb.size
    larger = picture.rgb.resize((2 * width, 2 * height))
    metadata = metadata or picture.metadata.enlarged(picture.rgb.size, larger.size)
    notes = save(larger, path, settings=OURS, metadata=metadata)
    with Image.open(path) as image:
        assert read_settings(image) == OURS
    return read_picture(path, LIMITS), notes


@pytest.mark.parametrize("content", [rich_jpeg(), rich_png(), rich_tiff()], ids=["jpeg", "png", "tiff"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_field_comes_back_or_is_named_in_a_note(content: bytes, suffix: str, tmp_path: Path) -> None:
    if suffix == ".jxl":
        pytest.importorskip("pillow_jxl")
    picture = read_picture(content, LIMITS)
    assert list(picture.notes) == []
    again, notes = written(picture, tmp_path / f"out{suffix}")
    before, after = Exif.parse(picture.metadata.exif or b""), Exif.parse(again.metadata.exif or b"")
    assert before.exif.keys() == {
        ExifTags.Base.UserComment,
        ExifTags.Base.ExifVersion,
        ExifTags.Base.FocalPlaneXResolution,
        ExifTags.Base.ExposureBiasValue,
    }
    assert after.gps == before.gps
    assert after.base.items() >= before.base.items()
    expected = before.exif | {ExifTags.Base.FocalPlaneXResolution: before.rational(2000)}
    assert after.exif == expected, "bytes and types are those of the input"
    assert again.metadata.dots_per_inch == (300, 300)
    root = xmp.parse(again.metadata.xmp or b"")
    text = (again.metadata.xmp or b"").decode()
    assert [item.text for item in root.iter("rdf:li")] == ["Käse", "<b>\r\n"]
    assert 'own:note="two&#10;lines"' in text
    assert 'GPano:FullPanoWidthPixels="160"' in text
    assert "<GPano:CroppedAreaImageWidthPixels>80</GPano" in text
    assert 'stDim:w="80" stDim:h="60"' in text
    assert not any(word in text for word in ("tiff:", "crs:CropTop", "seesr:settings"))
    holds_iptc = suffix in (".jpg", ".png", ".tiff")
    assert again.metadata.iptc == (IPTC_KEPT if holds_iptc else None)
    missing = ", ".join(notes)
    assert holds_iptc != ("IPTC" in missing)
    if picture.metadata.comment and suffix not in (".jpg", ".png"):
        assert "the comment" in missing
    else:
        assert again.metadata.comment == picture.metadata.comment
    in_exif = {"Author", "workflow"} if suffix in (".webp", ".avif") else {"Author"} if suffix != ".png" else set()
    for keyword, value in picture.metadata.texts.items():
        assert (again.metadata.texts.get(keyword) == value) == (suffix == ".png")
        assert (f"the text {keyword}" in missing) == (suffix != ".png" and keyword not in in_exif)


def test_texts_of_a_png_keep_their_names_and_an_earlier_run_is_forgotten(tmp_path: Path) -> None:
    picture = read_picture(rich_png(), LIMITS)
    written(picture, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        texts = image.text
    assert {name: texts[name] for name in ("parameters", "workflow", "Title", "Author", "Comment")} == {
        "parameters": "a cat\nSteps: 2",
        "workflow": '{"nodes": []}',
        "Title": "Katze, 猫",
        "Author": "Émile",
        "Comment": "of the file",
    }
    assert getattr(texts["Title"], "lang", None) == "de"
    assert texts["Software"].startswith("seesr ")
    assert json.loads(texts["seesr"]) == OURS


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_infotext_and_workflow_go_where_their_programs_look(suffix: str, tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a cat\nSteps: 2")
    text.add_text("workflow", '{"nodes": []}')
    text.add_text("Author", "Émile")
    _, notes = written(read_picture(encoded(photo_in_mode(40, 30), "PNG", pnginfo=text), LIMITS), tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert read_infotext(image) == "a cat\nSteps: 2"
        exif = image.getexif()
    assert exif[ExifTags.Base.Artist].encode("latin-1") == "Émile".encode()
    if suffix == ".jpg":
        assert notes == ["JPEG has no room for all of the input's metadata; left out: the text workflow"]
    else:
        assert (exif[ExifTags.Base.Make], notes) == ('workflow:{"nodes": []}', [])


@pytest.mark.parametrize("suffix", [*SUFFIXES[:-1], ".bmp"])
def test_without_metadata_only_resolution_and_settings_stay(suffix: str, tmp_path: Path) -> None:
    for content in (rich_jpeg(), rich_png()):
        picture = read_picture(content, LIMITS)
        notes = save(picture.rgb, tmp_path / f"out{suffix}", SaveOptions(metadata=False), OURS, metadata=picture.metadata)
        assert notes == []
        written = (tmp_path / f"out{suffix}").read_bytes()
        for trace in (
            b"fine light",
            b"\x03cat",
            b"Emile",
            "Käse".encode(),
            b"of the file",
            b"uuid:1",
            b"GPSLat",
            b"workflow",
        ):
            assert trace not in written
        again = read_picture(written, LIMITS).metadata
        assert again.dots_per_inch == pytest.approx((150, 150), rel=1e-3)
        assert not Exif.parse(again.exif).gps if again.exif else True
        assert (again.iptc, again.comment, dict(again.texts)) == (None, None, {})


def test_a_result_says_what_its_format_does_not_hold(upscaler: Upscaler, tmp_path: Path) -> None:
    result = upscaler.upscale(rich_jpeg(), scale=2, steps=1, seed=1)
    assert result.image.info["dpi"] == (300, 300)
    assert result.image.info["exif"] == result.metadata.exif
    result.save(tmp_path / "out.bmp")
    result.save(tmp_path / "out.webp")
    result.save(tmp_path / "out.webp")
    assert [note for note in result.notes if "metadata" in note] == [
        "BMP holds no metadata: the input's was left out",
        "WebP has no room for all of the input's metadata; left out: the comment, IPTC",
    ]
    assert Image.open(tmp_path / "out.bmp").info["dpi"] == pytest.approx((300, 300), rel=1e-3)


def test_a_turned_picture_keeps_nothing_that_lay_along_its_sides(tmp_path: Path) -> None:
    exif = Exif.parse(rich_exif())
    exif.base[ExifTags.Base.Orientation] = exif.numbers(3, [6])
    exif.base[ExifTags.Base.XResolution] = exif.rational(100)
    picture = read_picture(encoded(photo_in_mode(40, 30), "JPEG", exif=exif.content(), xmp=PACKET), LIMITS)
    kept = Exif.parse(picture.metadata.exif or b"")
    assert picture.metadata.dots_per_inch == (150, 100)
    assert kept.number(kept.exif[ExifTags.Base.FocalPlaneYResolution]) == 1000
    assert ExifTags.Base.FocalPlaneXResolution not in kept.exif
    assert not any(word in (picture.metadata.xmp or b"") for word in (b"GPano:Full", b"GPano:Cropped", b"mwg-rs:Regions"))
    again, _ = written(picture, tmp_path / "out.jpg")
    assert again.rgb.size == (60, 80)


def test_what_is_too_long_for_a_jpeg_is_left_out_longest_first(tmp_path: Path) -> None:
    long = "x" * 70_000
    packet = PACKET.replace(b"own:note=", f'own:long="{long}" own:note='.encode())
    exif = Exif.parse(rich_exif())
    exif.base[ExifTags.Base.ImageDescription] = Field(2, long.encode() + b"\0")
    many = b"".join(b"\x1c\x02\x19\x02\x00" + b"k" * 512 for _ in range(200))
    metadata = Metadata(exif=exif.content(), xmp=packet, iptc=many, comment=long.encode())
    again, notes = written(read_picture(rich_jpeg(), LIMITS), tmp_path / "out.jpg", metadata)
    assert notes == [
        "JPEG has no room for all of the input's metadata; left out: EXIF ImageDescription, XMP long, IPTC, the comment"
    ]
    assert ExifTags.Base.UserComment in Exif.parse(again.metadata.exif or b"").exif
    assert "Käse".encode() in (again.metadata.xmp or b"")
    assert written(again, tmp_path / "out.png", metadata)[1] == []


def test_extended_xmp_of_a_jpeg_is_read(tmp_path: Path) -> None:
    value = "y" * 100_000
    extension = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:e="https://example.org/e"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="">'
        f"<e:long>{value}</e:long></rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()
    parts = [(place, extension[place : place + 60_000]) for place in range(0, len(extension), 60_000)]
    segments = [
        segment(
            0xFFE1, b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">LL", len(extension), place) + part
        )
        for place, part in reversed(parts)
    ]
    content = rich_jpeg()
    picture = read_picture(content[:2] + b"".join(segments) + content[2:], LIMITS)
    assert list(picture.notes) == []
    again, _ = written(picture, tmp_path / "out.png")
    assert f"<e:long>{value}</e:long>".encode() in (again.metadata.xmp or b"")
    picture = read_picture(content[:2] + segments[0] + content[2:], LIMITS)
    assert any("extended XMP is damaged" in note for note in picture.notes)
    assert "Käse".encode() in (picture.metadata.xmp or b"")


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (PACKET.replace(b"<x:xmpmeta", b'<!DOCTYPE x [<!ENTITY a "b">]><x:xmpmeta', 1), "document type"),
        (PACKET.replace(b"Regions>", b"Region>", 1), "mismatched tag"),
        (
            PACKET.replace(b"<dc:subject>", b"<other:subject>").replace(b"</dc:subject>", b"</other:subject>"),
            "does not declare",
        ),
        (PACKET.replace(b"<rdf:Bag>", b"<rdf:Bag>" * 200), "nested more than 100 deep"),
        (b"<a/>", "no RDF"),
        (b"\xff\xfe<\0a\0/\0>\0", "unclosed token"),
        (PACKET[:-200], ""),
    ],
)
def test_xmp_that_is_damaged_or_hostile_is_left_out_with_a_note(packet: bytes, reason: str, tmp_path: Path) -> None:
    picture = read_picture(encoded(photo_in_mode(40, 30), "WEBP", xmp=packet), LIMITS)
    (note,) = picture.notes
    assert note.startswith("the input's XMP is damaged (")
    assert reason in note
    assert picture.metadata.xmp is None
    written(picture, tmp_path / "out.jpg")


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=("Cc",)), min_size=1, max_size=90),
        st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))),
    ),
    st.binary(max_size=200).filter(lambda comment: not comment.endswith(b"\0")),
)
def test_any_texts_and_comment_come_back(texts: dict[str, str], comment: bytes) -> None:
    metadata = Metadata(texts=texts, comment=comment or None)
    for kind in ("png", "jpg"):
        buffer = io.BytesIO()
        notes = save(photo_in_mode(4, 4), buffer, SaveOptions(format=kind), OURS, metadata=metadata)
        again = read_picture(buffer.getvalue(), LIMITS).metadata
        if kind == "jpg":
            assert again.comment == metadata.comment
        else:
            reserved = ("Comment", "Software", "seesr", "XML:com.adobe.xmp")
            expected = {name: text for name, text in texts.items() if len(name) <= 79 and name not in reserved}
            assert again.texts == expected
            assert bool(notes) == any(len(name) > 79 for name in texts)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["exif", "xmp", "iptc", "png"]), st.integers(0, 10_000), st.binary(min_size=1, max_size=6), st.booleans()
)
def test_damaged_blocks_cost_no_picture(kind: str, place: int, damage: bytes, cut: bool) -> None:
    def damaged(block: bytes) -> bytes:
        at = place % len(block)
        return block[:at] if cut else block[:at] + damage + block[at + len(damage) :]

    if kind == "png":
        text = PngImagePlugin.PngInfo()
        text.add_text("Raw profile type iptc", damaged(iptc.to_raw_profile("iptc", IPTC).encode()).decode("latin-1"))
        text.add_text("Raw profile type exif", damaged(iptc.to_raw_profile("exif", rich_exif()).encode()).decode("latin-1"))
        content = encoded(photo_in_mode(8, 8), "PNG", pnginfo=text)
    else:
        exif, packet = (
            damaged(rich_exif()) if kind == "exif" else rich_exif(),
            damaged(PACKET) if kind == "xmp" else PACKET,
        )
        content = encoded(photo_in_mode(8, 8), "JPEG", exif=exif, xmp=packet, dpi=(72, 72))
        resources = iptc.PHOTOSHOP_PREFIX + iptc.to_resources(IPTC)
        content = content[:2] + segment(0xFFED, damaged(resources) if kind == "iptc" else resources) + content[2:]
    picture = read_picture(content, LIMITS)
    for form in ("png", "jpg", "tiff"):
        buffer = io.BytesIO()
        metadata = picture.metadata.enlarged((8, 8), (16, 16))
        save(picture.rgb, buffer, SaveOptions(format=form), OURS, metadata=metadata)
        again = read_picture(buffer.getvalue(), LIMITS)
        assert list(again.notes) == [], "what is written is whole"


def test_fields_that_share_their_bytes_do_not_grow() -> None:
    size, count = 60_000, 4_000
    entries = b"".join(struct.pack("<HHLL", 0x1000 + tag, 7, size, 8) for tag in range(count))
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4) + bytes(size)
    parsed = Exif.parse(exif)
    assert len(parsed.content()) <= 2 * len(exif)
    assert parsed.damaged > count / 2


def test_a_tiff_that_pillow_does_not_know_keeps_its_metadata_too(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    tags = [(ExifTags.Base.Artist, 2, 0, "Emile", True), (700, 1, len(PACKET), PACKET, True)]
    pixels = np.linspace(0, 1, 8 * 8 * 3, dtype=np.float32).reshape(8, 8, 3)
    path = tmp_path / "float.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=tags, resolution=(150, 150), resolutionunit="INCH")
    again, _ = written(read_picture(path, LIMITS), tmp_path / "out.jpg")
    exif = Exif.parse(again.metadata.exif or b"")
    assert exif.base[ExifTags.Base.Artist].content == b"Emile\0"
    assert "Käse".encode() in (again.metadata.xmp or b"")
    assert again.metadata.dots_per_inch == (300, 300)


def test_a_gif_and_a_bmp_keep_what_they_hold(tmp_path: Path) -> None:
    gif = read_picture(encoded(photo_in_mode(8, 8).quantize(), "GIF", comment=b"of the file"), LIMITS)
    assert written(gif, tmp_path / "out.jpg")[0].metadata.comment == b"of the file"
    bmp = read_picture(encoded(photo_in_mode(8, 8), "BMP", dpi=(300, 150)), LIMITS)
    assert written(bmp, tmp_path / "out.png")[0].metadata.dots_per_inch == (600, 300)


@pytest.mark.parametrize(
    ("source", "kinds"), [("jpg", ("jpg", "png", "tiff", "webp", "avif", "jxl")), ("png", ("png", "jpg"))]
)
def test_exiftool_reads_back_what_it_wrote(source: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    """scripts/check_metadata.py does the same with every field that exiftool can write."""
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed (Debian: libimage-exiftool-perl)")
    pytest.importorskip("pillow_jxl")
    fields = {
        **{
            "EXIF:XPKeywords": "Katze",
            "EXIF:Rating": "4",
            "EXIF:UserComment": "schönes Licht",
            "EXIF:ImageDescription": "d",
        },
        **{"EXIF:Artist": "Jörg", "EXIF:LensModel": "50mm", "EXIF:ExposureCompensation": "-0.5", "EXIF:ISO": "200"},
        **{"EXIF:GPSLatitude": "50.5", "EXIF:GPSLatitudeRef": "N", "EXIF:OffsetTimeOriginal": "+02:00"},
        **{"EXIF:DateTimeOriginal": "1936:05:01 12:00:00", "EXIF:CameraSerialNumber": "7"},
        **{"XMP-dc:Subject": "Käse", "XMP-dc:Title": "猫", "XMP-xmp:Rating": "3", "XMP-xmpMM:HistoryAction": "saved"},
        **{"XMP-photoshop:City": "Köln", "XMP-iptcCore:CreatorWorkEmail": "a@b.c", "XMP-lr:HierarchicalSubject": "a|b"},
        **{"XMP-GPano:ProjectionType": "equirectangular", "XMP-xmpRights:Marked": "True", "XMP-mwg-rs:RegionName": "Anna"},
        **{"IPTC:Keywords": "cat", "IPTC:By-line": "Emile", "IPTC:Caption-Abstract": "a cat"},
    }
    path = tmp_path / f"every.{source}"
    photo_in_mode(40, 30).save(path, dpi=(72, 72))
    given_ = [f"-{name}={value}" for name, value in fields.items()]
    subprocess.run(["exiftool", "-q", "-overwrite_original", *given_, path], check=True)

    def values(of: Path) -> dict[str, object]:
        out = subprocess.run(["exiftool", "-j", "-G1", "-a", of], capture_output=True, text=True, check=True).stdout
        (all_fields,) = json.loads(out)
        assert "ExifTool:Error" not in all_fields
        groups = ("IFD0:", "ExifIFD:", "GPS:", "XMP-", "IPTC:")
        return {name: value for name, value in all_fields.items() if name.startswith(groups)}

    before = values(path)
    assert len(before) >= len(fields)
    for kind in kinds:
        written(read_picture(path, LIMITS), tmp_path / f"out.{kind}")
        after = values(tmp_path / f"out.{kind}")
        lost = {name for name, value in before.items() if after.get(name) != value}
        allowed = {"IFD0:XResolution", "IFD0:YResolution", "IFD0:YCbCrPositioning", "ExifIFD:ComponentsConfiguration"}
        allowed |= {"XMP-x:XMPToolkit"}
        if kind in ("webp", "avif", "jxl"):
            allowed |= {name for name in before if name.startswith("IPTC:")}
        assert lost <= allowed, kind


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_texts_under_names_that_pillow_uses_are_texts(mode: str) -> None:
    texts = dict.fromkeys(
        ["icc_profile", "transparency", "gamma", "chromaticity", "srgb", "dpi", "exif", "xmp", "photoshop", "loop"], "text"
    )
    info = PngImagePlugin.PngInfo()
    for name, value in texts.items():
        info.add_text(name, value)
    photo = photo_in_mode(8, 8, mode)
    before = encoded(photo, "PNG", pnginfo=info)
    parts = list(chunks(before))
    behind = b"".join([PNG_SIGNATURE, *sorted(parts, key=lambda part: {b"tEXt": 1, b"IEND": 2}.get(part[4:8], 0))])
    for content in (before, behind):
        picture = read_picture(content, LIMITS)
        assert picture.metadata.texts == texts
        assert (list(picture.notes), picture.alpha, picture.profile) == ([], None, None)
        assert is_close(picture.rgb, photo.convert("RGB"), 1)
