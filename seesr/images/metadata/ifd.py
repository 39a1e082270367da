"""EXIF as TIFF 6.0 stores it, in directories of fields: read and written with the bytes of every value as they are."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

EXIF_PREFIX = b"Exif\0\0"
"""What stands before EXIF in a JPEG, and in `Image.info["exif"]`."""
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
"""Types of fields."""
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
"""Bytes of one value, by type: TIFF 6.0 section 2; 13 is an offset (TIFF Technical Note 1), 129 UTF-8 (EXIF 3.0)."""
UNITS = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4}
"""Bytes whose order counts, by type; of the other types one."""
EXIF_POINTER, GPS_POINTER = 0x8769, 0x8825
"""Tags of the base directory that hold the offsets of the other two."""
MAX_PAGES = 10_000

Order = Literal["<", ">"]
"""Little and big endian."""
ORDERS: dict[bytes, Order] = {b"II*\0": "<", b"MM\0*": ">"}
"""The orders of the bytes by the beginning of a TIFF."""

Fields = dict[int, "Field"]
"""The fields of a directory by their tags."""


@dataclass(frozen=True)
class Field:
    """One field: its type, and its values as bytes in the order of the file."""

    type: int
    content: bytes


@dataclass
class Exif:
    """The directories of EXIF; thumbnail and interoperability are not among them."""

    order: Order = "<"
    """That of all numbers in the fields."""
    base: Fields = field(default_factory=dict)
    exif: Fields = field(default_factory=dict)
    gps: Fields = field(default_factory=dict)
    damaged: int = 0
    """How many fields could not be read."""

    @classmethod
    def parse(cls, content: bytes, page: int = 0) -> Exif:
        """Reads EXIF with or without `Exif\\0\\0` before it, or the file of a TIFF, of which directory number `page` counts.

        Raises:
            ValueError: it does not begin as a TIFF does, or a directory is cut short.
        """
        content = content.removeprefix(EXIF_PREFIX)
        order = ORDERS.get(content[:4])
        if order is None or page > MAX_PAGES:
            raise ValueError("it does not begin as EXIF does")
        exif = cls(order)
        try:
            (offset,) = struct.unpack_from(order + "L", content, 4)
            for _ in range(page):
                (count,) = struct.unpack_from(order + "H", content, offset)
                (offset,) = struct.unpack_from(order + "L", content, offset + 2 + 12 * count)
            exif.base = exif._read(content, offset)
            for pointer, fields in ((EXIF_POINTER, exif.exif), (GPS_POINTER, exif.gps)):
                if (of_pointer := exif.base.pop(pointer, None)) is not None:
                    fields.update(exif._read_or_count(content, of_pointer))
        except struct.error as error:
            raise ValueError("it is cut short") from error
        return exif

    def _read_or_count(self, content: bytes, pointer: Field) -> Fields:
        """The directory that `pointer` leads to; one that is damaged counts as a damaged field."""
        try:
            return self._read(content, *struct.unpack(self.order + "L", pointer.content))
        except struct.error:
            self.damaged += 1
            return {}

    def _read(self, content: bytes, offset: int) -> Fields:
        (count,) = struct.unpack_from(self.order + "H", content, offset)
        entries = content[offset + 2 : offset + 2 + 12 * count]
        if len(entries) < 12 * count:
            raise struct.error("the directory is cut short")
        fields: Fields = {}
        budget = len(content)  # fields that share their bytes could grow to gigabytes
        for tag, kind, number, value in struct.iter_unpack(self.order + "HHL4s", entries):
            size = TYPE_SIZES.get(kind, 0) * number
            (start,) = struct.unpack(self.order + "L", value)
            budget -= size
            if not size or budget < 0 or (size > 4 and start + size > len(content)):
                self.damaged += bool(number)
            else:
                fields[tag] = Field(kind, value[:size] if size <= 4 else content[start : start + size])
        return fields

    def content(self) -> bytes:
        """The bytes that `parse` reads, `Exif\\0\\0` first; nothing where there is no field."""
        directories = self.directories(8)
        header = (b"II" if self.order == "<" else b"MM") + struct.pack(self.order + "HL", 42, 8)
        return EXIF_PREFIX + header + directories if directories else b""

    def directories(self, offset: int) -> bytes:
        """The directories as they stand at `offset` in a file, the base first; nothing where there is no field."""
        directories = [(EXIF_POINTER, self.exif), (GPS_POINTER, self.gps)]
        base = self.base | {pointer: self.numbers(LONG, [0]) for pointer, fields in directories if fields}
        if not base:
            return b""
        end, blocks = offset + len(self._directory(base, offset)), []
        for pointer, fields in directories:
            if fields:
                base[pointer] = self.numbers(LONG, [end])
                blocks.append(self._directory(fields, end))
                end += len(blocks[-1])
        return b"".join([self._directory(base, offset), *blocks])

    def _directory(self, fields: Fields, offset: int) -> bytes:
        """The bytes of a directory that begins at `offset`."""
        entries, values = [struct.pack(self.order + "H", len(fields))], b""
        values_at = offset + 2 + 12 * len(fields) + 4
        for tag, item in sorted(fields.items()):
            count = len(item.content) // TYPE_SIZES[item.type]
            short = len(item.content) <= 4
            value = item.content.ljust(4, b"\0") if short else struct.pack(self.order + "L", values_at + len(values))
            entries.append(struct.pack(self.order + "HHL", tag, item.type, count) + value)
            values += b"" if short else item.content + b"\0" * (len(item.content) % 2)
        return b"".join([*entries, bytes(4), values])

    def little_endian(self) -> Exif:
        """The same fields in that order."""

        def swapped(fields: Fields) -> Fields:
            return {tag: Field(item.type, _swapped(item.content, UNITS.get(item.type, 1))) for tag, item in fields.items()}

        if self.order == "<":
            return self
        return Exif("<", swapped(self.base), swapped(self.exif), swapped(self.gps), self.damaged)

    def numbers(self, kind: int, values: Iterable[int]) -> Field:
        """A field of type BYTE, SHORT or LONG, or RATIONAL of numerators and denominators in turn."""
        values = list(values)
        letter = {BYTE: "B", SHORT: "H", LONG: "L", RATIONAL: "L"}[kind]
        return Field(kind, struct.pack(f"{self.order}{len(values)}{letter}", *values))

    def rational(self, value: Fraction | float) -> Field:
        """A field of one positive number."""
        rounded = Fraction(value).limit_denominator(10_000)
        return self.numbers(RATIONAL, [min(rounded.numerator, 2**32 - 1), rounded.denominator])

    def number(self, item: Field | None) -> Fraction | None:
        """The first number of a field of type BYTE, SHORT, LONG or RATIONAL; None where there is none."""
        letter = {BYTE: "B", SHORT: "H", LONG: "L", RATIONAL: "LL"}.get(item.type) if item else None
        if item is None or letter is None:
            return None
        numerator, *denominator = struct.unpack_from(self.order + letter, item.content)
        return None if denominator == [0] else Fraction(numerator, *denominator)


def _swapped(content: bytes, unit: int) -> bytes:
    """The bytes of each `unit` in turn in opposite order."""
    return b"".join(content[start : start + unit][::-1] for start in range(0, len(content), unit)) if unit > 1 else content
