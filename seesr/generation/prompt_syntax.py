r"""The prompt syntax of the AUTOMATIC1111 web UI: emphasis, scheduling, alternation, AND and BREAK.

`(word)` counts 1.1 times, `(word:1.2)` 1.2 times, `[word]` 1/1.1 times, and brackets nest. `[from:to:0.5]` changes at half
of the steps, `[from:to:3]` after three, `[to:0.5]` and `[from::0.5]` add and remove. `[a|b]` alternates from step to step.
`AND` separates prompts whose predictions are added, each with a weight such as `AND a cat :0.5`. `\(`, `\[` and so on are
the signs themselves. A bracket that is not closed reaches to the end, and one that was not opened is text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from seesr.errors import OptionError

EMPHASIS = 1.1
MAX_DEPTH, MAX_WEIGHT, MAX_SUBPROMPTS = 50, 100.0, 32
"""Brackets within brackets beyond which they are text, the largest weight, and the most prompts that AND may join."""
BREAK = "BREAK"
"""The word that ends a chunk of tokens."""
BREAKS = re.compile(rf"\b{BREAK}\b")
_TOKEN = re.compile(r"\\[()\[\]\\:|]|[()\[\]:|]|[^()\[\]:|\\]+|\\")
_AND = re.compile(r"\bAND\b")
_SUBPROMPT_WEIGHT = re.compile(r"^(.*?):\s*(-?\d+(?:\.\d*)?|-?\.\d+)\s*$", re.DOTALL)
_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*")


@dataclass(frozen=True)
class Fragment:
    """A part of a prompt, and its weight."""

    text: str
    weight: float = 1.0


@dataclass
class _Group:
    """Parts in a row, each a text or another node, times a factor."""

    parts: list[str | _Group | _Scheduled | _Alternating] = field(default_factory=list)
    factor: float = 1.0


@dataclass
class _Scheduled:
    before: _Group
    after: _Group
    when: float
    """The step from which on `after` counts; a share of the steps where `is_share`."""
    is_share: bool


@dataclass
class _Alternating:
    options: list[_Group]


@dataclass(frozen=True)
class SubPrompt:
    """One of the prompts that AND separates."""

    root: _Group
    weight: float = 1.0

    def fragments(self, step: int, steps: int) -> list[Fragment]:
        """What the prompt is at a step, 0 to `steps` - 1; neighbours of one weight are joined."""
        fragments: list[Fragment] = []
        for fragment in _fragments(self.root, 1.0, step, steps):
            if fragments and fragments[-1].weight == fragment.weight:
                fragments[-1] = Fragment(fragments[-1].text + fragment.text, fragment.weight)
            else:
                fragments.append(fragment)
        return fragments


def parse_negative_prompt(text: str) -> SubPrompt:
    """The prompt, of which AND is a word."""
    return SubPrompt(_Parser(text).parse())


def parse_prompt(text: str) -> list[SubPrompt]:
    """The prompts that AND separates; one where there is no AND.

    Raises:
        OptionError: there are too many.
    """
    pieces = _AND.split(text)
    if len(pieces) == 1:
        return [SubPrompt(_Parser(text).parse())]
    if len(pieces) > MAX_SUBPROMPTS:
        raise OptionError(f"the prompt joins {len(pieces)} prompts by AND; at most {MAX_SUBPROMPTS} are allowed.")
    subprompts = []
    for piece in pieces:
        found = _SUBPROMPT_WEIGHT.match(piece)
        words, weight = (found[1], _weight(found[2])) if found else (piece, 1.0)
        subprompts.append(SubPrompt(_Parser(words.strip()).parse(), weight))
    return subprompts


def changes_with_steps(subprompts: list[SubPrompt]) -> bool:
    """Whether something is scheduled or alternates."""
    return any(_changes(subprompt.root) for subprompt in subprompts)


def _weight(number: str) -> float:
    return min(MAX_WEIGHT, max(-MAX_WEIGHT, float(number)))


class _Parser:
    """Recursive descent over signs and the text between them."""

    def __init__(self, text: str) -> None:
        self.tokens, self.position, self.depth = _TOKEN.findall(text), 0, 0

    def parse(self) -> _Group:
        root = _Group()
        while self.position < len(self.tokens):
            group, _ = self._sequence("")
            root.parts += group.parts
            if self.position < len(self.tokens):  # a bracket that was not opened
                root.parts.append(self.tokens[self.position])
                self.position += 1
        return root

    def _sequence(self, ends: str) -> tuple[_Group, str]:
        """Parts up to one of the signs `ends`, or to a closing bracket or the end; and that sign, which is not consumed."""
        group = _Group()
        while self.position < len(self.tokens):
            token = self.tokens[self.position]
            if token in ends or token in (")", "]"):
                return group, token
            self.position += 1
            if token in ("(", "[") and self.depth < MAX_DEPTH:
                self.depth += 1
                group.parts.append(self._emphasis() if token == "(" else self._square())
                self.depth -= 1
            else:
                group.parts.append(token[1:] if len(token) == 2 and token[0] == "\\" else token)
        return group, ""

    def _emphasis(self) -> _Group:
        group, end = self._sequence("")
        while end == "]":  # belongs to no bracket here
            self.position += 1
            more, following = self._sequence("")
            group.parts += [end, *more.parts]
            end = following
        group.factor = EMPHASIS
        if end == ")":
            self.position += 1
            # `(words:1.2)`: the colon and the number came in as text.
            colon, number = group.parts[-2:] if len(group.parts) >= 2 else ("", "")
            if colon == ":" and isinstance(number, str) and _NUMBER.fullmatch(number):
                group.parts, group.factor = group.parts[:-2], _weight(number)
        return group

    def _square(self) -> _Group | _Scheduled | _Alternating:
        sections, signs = [], []
        while True:
            section, end = self._sequence(":|")
            sections.append(section)
            while end == ")":  # belongs to no bracket here
                self.position += 1
                more, following = self._sequence(":|")
                section.parts += [end, *more.parts]
                end = following
            if end == "":
                break
            self.position += 1
            if end == "]":
                return _square_node(sections, signs)
            signs.append(end)
        return _Group(_joined(sections, signs).parts, 1 / EMPHASIS)


def _square_node(sections: list[_Group], signs: list[str]) -> _Group | _Scheduled | _Alternating:
    if signs and set(signs) == {"|"}:
        return _Alternating(sections)
    last = "".join(part for part in sections[-1].parts if isinstance(part, str))
    if signs and set(signs) == {":"} and len(sections) in (2, 3) and _NUMBER.fullmatch(last):
        before, after = sections[:2] if len(sections) == 3 else (_Group(), sections[0])
        return _Scheduled(before, after, float(last), "." in last)
    return _Group(_joined(sections, signs).parts, 1 / EMPHASIS)


def _joined(sections: list[_Group], signs: list[str]) -> _Group:
    """Sections with their signs as text."""
    joined = _Group(list(sections[0].parts))
    for sign, section in zip(signs, sections[1:], strict=False):
        joined.parts += [sign, *section.parts]
    return joined


def _fragments(group: _Group, weight: float, step: int, steps: int) -> list[Fragment]:
    fragments, weight = list[Fragment](), weight * group.factor
    for part in group.parts:
        if isinstance(part, str):
            fragments.append(Fragment(part, min(MAX_WEIGHT, max(-MAX_WEIGHT, weight))))
        elif isinstance(part, _Alternating):
            fragments += _fragments(part.options[step % len(part.options)], weight, step, steps)
        elif isinstance(part, _Scheduled):
            when = int(part.when * steps) if part.is_share else part.when
            fragments += _fragments(part.after if step >= when else part.before, weight, step, steps)
        else:
            fragments += _fragments(part, weight, step, steps)
    return fragments


def _changes(group: _Group) -> bool:
    return any(
        isinstance(part, _Scheduled | _Alternating) or (isinstance(part, _Group) and _changes(part)) for part in group.parts
    )
