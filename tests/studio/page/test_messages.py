"""The page's words: every language has them all, and a browser gets the one that it asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seesr.generation.options import GenerationOptions
from seesr.options import Options
from seesr.studio.page.messages import FOLDER, Messages, languages, preferred_language

KNOWN = languages()
PLACES = re.compile(r"\{\w+\}")


@pytest.mark.parametrize("language", languages())
def test_no_message_and_no_value_in_one_is_missing(language: str) -> None:
    english = Messages.read("en").words
    own = tomllib.loads((FOLDER / f"{language}.toml").read_text())
    texts = {f"{table}.{name}": text for table, words in own.items() for name, text in words.items()}
    assert texts.keys() == english.keys()
    assert {key: set(PLACES.findall(text)) for key, text in texts.items()} == {
        key: set(PLACES.findall(text)) for key, text in english.items()
    }


def test_what_a_language_lacks_is_said_in_english(tmp_path: Path) -> None:
    (tmp_path / "en.toml").write_text('[word]\none = "one {count}"\ntwo = "two"\n')
    (tmp_path / "it.toml").write_text('[word]\none = "uno {count}"\n')
    words = Messages.read("it", tmp_path)
    assert (words("word.one", count=3), words("word.two")) == ("uno 3", "two")


def test_every_word_that_the_scripts_say_is_there() -> None:
    known = {key.removeprefix("js.") for key in Messages.read("en").words if key.startswith("js.")}
    scripts = "".join(path.read_text() for path in (FOLDER.parent / "static").glob("*.js"))
    said = set(re.findall(r'\b(?:say|button)\("(\w+)"', scripts))
    assert said <= known
    assert len(said) > 20


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("it", "it"),
        ("es-MX,es;q=0.9,en;q=0.5", "es"),
        ("de,it;q=0.3", "it"),
        ("en;q=0.1,es;q=0.9", "es"),
        ("es;q=0", "en"),
    ],
)
def test_a_browser_gets_the_language_that_it_asks_for(accepted: str, language: str) -> None:
    assert preferred_language(accepted, languages()) == language


@given(st.text(max_size=50))
def test_any_header_gives_a_language(accepted: str) -> None:
    assert preferred_language(accepted, KNOWN) in KNOWN


def test_options_that_are_shown_have_labels() -> None:
    words = Messages.read("en")
    assert all(words.get(f"field.{name}", "") for name in ("prompt", "steps", "seed", "width", "height"))
    assert {"prompt", "scale"} <= Options.model_fields.keys()
    assert {"width", "height"} <= GenerationOptions.model_fields.keys()
