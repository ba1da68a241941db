"""Sets of prompts whose answers can be checked: one JSON object a line, read strictly, every mistake with its line.

    {"id": "sum-1", "prompt": "What is 2 + 2?", "expect": {"exact": "4"}, "category": "easy", "split": "held_out"}

`messages` may stand for `prompt`. What is expected is `exact` (case, blanks and a last full stop aside), `contains` (a
text, or all of several), `regex` (somewhere in the answer) or `choices` with the right one as `answer`. `split` says
whether the rules under test were made with this prompt in sight (`tuning`) or without (`held_out`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from fastroute.errors import ConfigError, Problem

Split = Literal["tuning", "held_out", "unknown"]
SHIPPED: Final = "the shipped set"
PROMPTS_MAX: Final = 100_000
_FILE_MAX: Final = 256 * 1024 * 1024
_KINDS: Final = ("exact", "contains", "regex", "choices")
_FIELDS: Final = ("id", "prompt", "messages", "expect", "category", "split")
_ROLES: Final = ("system", "developer", "user", "assistant", "tool")


class PromptSetError(ConfigError):
    """A set of prompts cannot be used; every mistake is told at once."""


class Expected(Struct, frozen=True):
    """What a right answer is."""

    kind: Literal["exact", "contains", "regex", "choices"]
    values: tuple[str, ...]  # of choices the right one first

    def met(self, text: str) -> bool:
        match self.kind:
            case "exact":
                return _plain(text) == _plain(self.values[0])
            case "contains":
                spoken = text.casefold()
                return all(value.casefold() in spoken for value in self.values)
            case "regex":
                return re.search(self.values[0], text) is not None
            case "choices":
                return _chosen(text, self.values) == {self.values[0]}


class Prompt(Struct, frozen=True):
    """One question; `digest` names what is asked, whatever it is called."""

    id: str
    messages: tuple[dict[str, Any], ...]
    digest: str
    expect: Expected | None = None
    category: str = "all"
    split: Split = "unknown"


class PromptSet(Struct, frozen=True):
    """Prompts, and where they were read."""

    source: str
    prompts: tuple[Prompt, ...]

    def some(self, limit: int | None) -> PromptSet:
        """So many of them at most, spread evenly over the set."""
        count = len(self.prompts)
        if limit is None or limit >= count:
            return self
        return PromptSet(self.source, tuple(self.prompts[place * count // limit] for place in range(limit)))


def read_prompts(path: Path | None) -> PromptSet:
    """The prompts of a file, or those that are shipped. `PromptSetError` names every line that cannot be used."""
    if path is None:
        data = Path(__file__).with_name("prompts.jsonl").read_bytes()
        return parse(data, SHIPPED)
    try:
        if path.stat().st_size > _FILE_MAX:
            raise PromptSetError([Problem(str(path), f"is longer than {_FILE_MAX >> 20} MiB; split it")])
        data = path.read_bytes()
    except OSError as error:
        raise PromptSetError([Problem(str(path), f"cannot be read: {error.strerror}")]) from None
    return parse(data, str(path))


def parse(data: bytes, source: str) -> PromptSet:
    """The same from bytes."""
    prompts: list[Prompt] = []
    problems: list[Problem] = []
    first: dict[str, int] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        found = _prompt(line, number)
        if isinstance(found, Prompt) and first.setdefault(found.id, number) != number:
            found = f"id: {found.id!r} is already the prompt of line {first[found.id]}"
        if isinstance(found, str):
            problems.append(Problem(f"{source}:{number}", found))
        else:
            prompts.append(found)
    if not prompts and not problems:
        problems.append(Problem(source, "holds no prompt; write one JSON object a line, with a prompt"))
    if len(prompts) > PROMPTS_MAX:
        problems.append(Problem(source, f"holds {len(prompts)} prompts; at most {PROMPTS_MAX} are compared"))
    if problems:
        raise PromptSetError(problems)
    return PromptSet(source, tuple(prompts))


def digest_of(messages: Iterable[dict[str, Any]]) -> str:
    """What is asked, in 32 hexadecimal digits."""
    return hashlib.sha256(msgspec.json.encode(tuple(messages), order="sorted")).hexdigest()[:32]


def _prompt(line: bytes, number: int) -> Prompt | str:
    """The prompt of a line, or what is wrong with it."""
    try:
        given = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"is not JSON: {error}"
    if not isinstance(given, dict):
        return 'is not an object such as {"prompt": "What is 2 + 2?", "expect": {"exact": "4"}}'
    unknown = given.keys() - set(_FIELDS)
    if unknown:
        return f"{min(unknown)!r} is not a field; there are {', '.join(_FIELDS)}"
    messages = _messages(given)
    if isinstance(messages, str):
        return messages
    texts = {"id": f"line-{number}", "category": "all"}
    for name in texts:
        value = given.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not value or len(value) > 200 or not value.isprintable():
            return f"{name}: is a printable text of 1 to 200 characters, not {value!r:.60}"
        texts[name] = value
    split = given.get("split", "unknown")
    if split not in ("tuning", "held_out", "unknown"):
        return f"split: is tuning or held_out, not {split!r:.60}"
    expected = None
    if given.get("expect") is not None:
        found = _expected(given["expect"])
        if isinstance(found, str):
            return f"expect: {found}"
        expected = found
    return Prompt(texts["id"], messages, digest_of(messages), expected, texts["category"], split)


def _messages(given: dict[str, Any]) -> tuple[dict[str, Any], ...] | str:
    if ("prompt" in given) == ("messages" in given):
        return "has both a prompt and messages; keep one" if "prompt" in given else "has neither a prompt nor messages"
    if "prompt" in given:
        text = given["prompt"]
        if not isinstance(text, str) or not text.strip():
            return f"prompt: is a text, not {text!r:.60}"
        return ({"role": "user", "content": text},)
    messages = given["messages"]
    if not isinstance(messages, list) or not messages:
        return f"messages: is a list of messages, not {messages!r:.60}"
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            return f"messages[{place}]: is a message with a role among {', '.join(_ROLES)}, not {message!r:.60}"
    return tuple(messages)


def _expected(given: Any) -> Expected | str:
    if isinstance(given, str):
        given = {"exact": given}
    kinds = [kind for kind in _KINDS if isinstance(given, dict) and kind in given]
    if len(kinds) != 1:
        return f'is one of {", ".join(_KINDS)}, such as {{"exact": "4"}}, not {given!r:.60}'
    kind = kinds[0]
    extra = given.keys() - {kind} - ({"answer"} if kind == "choices" else set())
    if extra:
        return f"{min(extra)!r} does not go with {kind}"
    reader: dict[str, Callable[[dict[str, Any]], Expected | str]] = {
        "exact": lambda said: _one("exact", said["exact"]),
        "regex": lambda said: _regex(said["regex"]),
        "contains": lambda said: _several(said["contains"]),
        "choices": lambda said: _choices(said["choices"], said.get("answer")),
    }
    return reader[kind](given)


def _one(kind: Literal["exact", "regex"], value: Any) -> Expected | str:
    if not isinstance(value, str) or not value.strip():
        return f"{kind} is a text, not {value!r:.60}"
    return Expected(kind, (value,))


def _regex(value: Any) -> Expected | str:
    found = _one("regex", value)
    if isinstance(found, Expected):
        try:
            re.compile(value)
        except re.error as error:
            return f"regex {value!r:.60} cannot be read: {error}"
    return found


def _several(value: Any) -> Expected | str:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(one, str) and one.strip() for one in values):
        return f"contains is a text or a list of texts, not {value!r:.60}"
    return Expected("contains", tuple(values))


def _choices(value: Any, answer: Any) -> Expected | str:
    good = isinstance(value, list) and len(value) > 1 and all(isinstance(one, str) and one.strip() for one in value)
    if not good or len({_plain(one) for one in value}) != len(value):
        return f"choices are two or more different texts, not {value!r:.60}"
    if answer not in value:
        return f"answer is one of the choices, not {answer!r:.60}"
    return Expected("choices", (answer, *(one for one in value if one != answer)))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip("\"'`* ").removesuffix(".")


def _chosen(text: str, choices: Iterable[str]) -> set[str]:
    """The choices that an answer names as whole words: one is a choice, several are none."""
    return {one for one in choices if re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text, re.IGNORECASE)}
