"""YAML files, read with the line of every key.

Stricter than YAML: keys are text and differ, dates are text, and there are no tags but those of plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fsdet.errors import ConfigError, cut, shown
from fsdet.reading.text import LONGEST_NUMBER, Error, read_text, why_unusable

DEEPEST = 50
"""Levels of lists and mappings within one another."""
MOST_VALUES = 200_000
"""Values of a file, each alias counted with all that it stands for."""
LONGEST_KEY = 200
"""Characters of a key."""
LEVELS = 4
"""Levels of keys whose lines are recorded."""
TAG = "tag:yaml.org,2002:"
PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
"""Kinds of values that a file may hold."""
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """The content of a YAML file."""

    values: Any
    """None for an empty file."""
    lines: dict[str, int] = field(default_factory=dict)
    """Dotted key -> line, of the upper levels."""


def read_yaml(path: Path, error: Error = ConfigError, text_keys: bool = True) -> Document:
    """The content of a YAML file.

    Args:
        path: of the file.
        error: class of the exception.
        text_keys: whether every key must be text.

    Raises:
        Exception: `error`, see `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path, error), str(path), error, text_keys)


def parse_yaml(
    text: str, source: str, error: Error = ConfigError, text_keys: bool = True
) -> Document:
    """The content of YAML.

    Args:
        text: the YAML.
        source: file or flag that it comes from, for the message.
        error: class of the exception.
        text_keys: whether every key must be text.

    Raises:
        Exception: `error`: not YAML, too deep, too many values, a key twice, or a value that cannot be used.
    """
    try:
        _check_size(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Document(None)
        lines = dict(_keys(node, text_keys))
        return Document(loader.construct_document(node), lines)
    except _RefusedError as refused:
        raise error(f"{source}:{refused.line}: {refused}") from None
    except (yaml.YAMLError, UnicodeEncodeError) as problem:
        place = "" if (line := _line_of(problem, text)) is None else f":{line}"
        why = cut(str(getattr(problem, "problem", None) or problem).partition("\n")[0])
        raise error(f"{source}{place}: not valid YAML: {why}; correct the YAML there") from None


class _RefusedError(Exception):
    """Something that is YAML, but against a rule of this module."""

    def __init__(self, mark: Any, rule: str) -> None:
        self.line = int(mark.line) + 1
        super().__init__(rule)


def _line_of(problem: Exception, text: str) -> int | None:
    mark = getattr(problem, "problem_mark", None)
    if mark is not None:
        return int(mark.line) + 1
    if isinstance(problem, UnicodeEncodeError):
        return text.count("\n", 0, problem.start) + 1
    position = getattr(problem, "position", None)  # of a character that YAML does not have
    return None if position is None else text.encode().count(b"\n", 0, position) + 1


@dataclass
class _Open:
    """A list or mapping that has begun."""

    anchor: str | None
    before: int
    """Values before it."""
    depth: int = 1


def _check_size(text: str) -> None:
    """Refuse what is too deep or too large, aliases included, before anything is built."""
    known: dict[str, tuple[int, int]] = {}
    parents: list[_Open] = []
    total = 0
    for event in yaml.parse(text, Loader=_Base):
        size, depth = 1, 0
        if isinstance(event, yaml.CollectionEndEvent):
            ended = parents.pop()
            size, depth = 0, ended.depth
            known[ended.anchor or ""] = (total - ended.before, ended.depth)
        elif isinstance(event, yaml.AliasEvent):
            if any(parent.anchor == event.anchor for parent in parents):
                raise _RefusedError(
                    event.start_mark, f"*{event.anchor} stands for itself; remove it"
                )
            size, depth = known.get(str(event.anchor), (1, 0))
        elif isinstance(event, yaml.CollectionStartEvent):
            parents.append(_Open(event.anchor, total))
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        total += size
        if parents:
            parents[-1].depth = max(parents[-1].depth, depth + 1)
        if len(parents) + depth > DEEPEST:
            rule = f"must be nested at most {DEEPEST} levels deep; flatten it"
            raise _RefusedError(event.start_mark, rule)
        if total > MOST_VALUES:
            rule = f"must hold at most {MOST_VALUES:,} values, aliases expanded; shorten it"
            raise _RefusedError(event.start_mark, rule)


def _keys(
    node: Any, text_keys: bool, prefix: str = "", level: int = 1
) -> Iterator[tuple[str, int]]:
    """Dotted key and line of the upper levels; checks the keys of all."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            for _ in _keys(item, text_keys, prefix, LEVELS + 1):
                pass
    if not isinstance(node, yaml.MappingNode):
        return
    here: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        _check_key(key, prefix, here, text_keys)
        name = f"{prefix}{key.value}" if level <= LEVELS else prefix
        if level <= LEVELS:
            yield name, key.start_mark.line + 1
        yield from _keys(value, text_keys, f"{name}.", level + 1)


def _check_key(key: Any, prefix: str, here: dict[tuple[str, str], int], text_keys: bool) -> None:
    """Refuse a key that is not text or too long, or that is in `here` already; add it there."""
    if not isinstance(key, yaml.ScalarNode) or (
        text_keys and key.tag not in (f"{TAG}str", f"{TAG}merge")
    ):
        got = shown(key.value) if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
        rule = f"keys must be text, but got {got}; put it in quotes or remove it"
        raise _RefusedError(key.start_mark, rule)
    if len(key.value) > LONGEST_KEY:
        rule = f"a key must have at most {LONGEST_KEY} characters, but got {shown(key.value)}; shorten it"
        raise _RefusedError(key.start_mark, rule)
    if (first := here.get((key.tag, key.value))) is not None:
        rule = f"key '{cut(prefix + key.value)}' is here and in line {first}; remove one"
        raise _RefusedError(key.start_mark, rule)
    here[key.tag, key.value] = key.start_mark.line + 1


class _Loader(_Base):  # type: ignore[misc]
    """Builds plain values only."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [one for one in found if one[0] not in (f"{TAG}timestamp", f"{TAG}value")]
        for first, found in _Base.yaml_implicit_resolvers.items()
    }


def _plain(kind: str) -> Callable[[Any, Any], Any]:
    """The constructor of one kind of value; its exceptions say where it is."""
    build = getattr(_Base, f"construct_yaml_{kind}")

    def construct(loader: Any, node: Any) -> Any:
        if kind in ("int", "float") and len(node.value) > LONGEST_NUMBER:
            rule = f"a number must have at most {LONGEST_NUMBER} digits, but has {len(node.value):,}; shorten it"
            raise _RefusedError(node.start_mark, rule)
        try:
            value = build(loader, node)
        except (ValueError, LookupError, TypeError, OverflowError):
            rule = f"{shown(node.value)} is no {kind}; remove the tag"
            raise _RefusedError(node.start_mark, rule) from None
        if (broken := why_unusable(value)) is not None:
            raise _RefusedError(node.start_mark, broken)
        return value

    return construct


def _unknown(_: Any, node: Any) -> Any:
    known = ", ".join(f"!!{kind}" for kind in PLAIN)
    tag = cut(node.tag.replace(TAG, "!!"))
    raise _RefusedError(node.start_mark, f"the tag {tag} is not one of {known}; remove it")


_Loader.yaml_constructors = {f"{TAG}{kind}": _plain(kind) for kind in PLAIN} | {None: _unknown}
_Loader.yaml_multi_constructors = {}
