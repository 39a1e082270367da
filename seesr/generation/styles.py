"""Styles, wildcards and variants: what becomes of a prompt before its syntax is read."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

from seesr.debug import without_warnings
from seesr.errors import OptionError
from seesr.generation.options import MAX_PROMPT

MAX_VARIANTS = 200
"""Of a prompt; each takes milliseconds."""
COMMENT_SIGN = "\ue000"
"""Stands for # while variants are chosen."""
PLACE = "{prompt}"
"""Where a style's text holds the prompt; without it the style follows the prompt."""


def read_styles(path: Path) -> dict[str, tuple[str, str]]:
    """(prompt, negative prompt) of each style in A1111's `styles.csv`, by name; empty if there is no such file.

    Raises:
        OptionError: it is not such a file.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        return {row["name"]: (row.get("prompt") or "", row.get("negative_prompt") or "") for row in rows if row["name"]}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise OptionError(
            f"{path} is not a file of styles with the columns name, prompt, negative_prompt ({error})."
        ) from error


def apply_styles(
    prompt: str, negative_prompt: str, names: Sequence[str], styles: dict[str, tuple[str, str]]
) -> tuple[str, str]:
    """Both prompts with the named styles, in their order.

    Raises:
        OptionError: a style is unknown.
    """
    for name in names:
        if name not in styles:
            raise OptionError(f"unknown style {name!r}; styles.csv has: {', '.join(styles) or 'none'}.")
        prompt, negative_prompt = (_merged(*pair) for pair in zip((prompt, negative_prompt), styles[name], strict=True))
    return prompt, negative_prompt


def _merged(prompt: str, style: str) -> str:
    if PLACE in style:
        return style.replace(PLACE, prompt)
    return ", ".join(part for part in (prompt.strip(), style.strip()) if part) if style.strip() else prompt


def expand_variants(prompt: str, seed: int, wildcards: Path | None = None) -> str:
    """The prompt with one of each `{a|b}` and of each `__wildcard__` chosen by `seed`.

    What is not such syntax, such as a brace that is not closed, stays as it is.

    Args:
        wildcards: folder with a text file for each wildcard, one value a line.

    Raises:
        OptionError: a wildcard contains itself, or variants nest too deeply.
    """
    if "{" not in prompt and "__" not in prompt:
        return prompt
    from dynamicprompts.generators import RandomPromptGenerator
    from dynamicprompts.wildcards import WildcardManager
    from pyparsing.exceptions import ParseException

    manager = WildcardManager(wildcards) if wildcards is not None and wildcards.is_dir() else WildcardManager()
    if (count := prompt.count("{") + prompt.count("__")) > MAX_VARIANTS:
        raise OptionError(f"the prompt has {count} {{variants}} and __wildcards__; at most {MAX_VARIANTS} are allowed.")
    try:
        with without_warnings("dynamicprompts", logging.CRITICAL):
            # Its grammar would take what follows the sign as a comment.
            template = prompt.replace("#", COMMENT_SIGN)
            expanded = RandomPromptGenerator(manager, seed=seed).generate(template, num_images=1)[0]
        expanded = expanded.replace(COMMENT_SIGN, "#")
    except (ParseException, ValueError, KeyError, IndexError):
        return prompt
    except RecursionError:
        raise OptionError("the prompt's {variants} nest too deeply, or a wildcard names itself; write fewer.") from None
    if len(expanded) > MAX_PROMPT:
        raise OptionError(f"the prompt has {len(expanded)} characters with its wildcards; at most {MAX_PROMPT} are allowed.")
    return expanded
