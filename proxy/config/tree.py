"""YAML text as a tree that knows where everything stands, with variables expanded and nothing typed yet.

It is built from the parser's events, not by a YAML constructor: the type of a scalar is decided by the setting it is for
(so `off`, `no` and `2024-10-21` need no quotes), no tag can make an object, and nesting, size and aliases are bounded
before anything recurses. An alias shares its node; `weight` counts what it would be written out.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from proxy.config.expand import expand
from proxy.config.problem import Path

DEPTH_MAX = 32
NODES_MAX = 50_000  # with every alias written out

_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_TAGS = frozenset({None, "!", "tag:yaml.org,2002:str"})
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Mark(NamedTuple):
    """A place in the file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A single value; `broken` says that its expansion failed and was reported."""

    mark: Mark
    text: str
    plain: bool
    expanded: bool = False
    broken: bool = False
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A sequence."""

    mark: Mark
    nodes: "tuple[Node, ...]"
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """A mapping by key, with the place of each key."""

    mark: Mark
    nodes: "Mapping[str, Node]"
    key_marks: Mapping[str, Mark]
    weight: int


Node = Scalar | Items | Entries
Report = Callable[[Path, Mark, str], None]


class TreeError(Exception):
    """The text cannot be read any further than `mark`."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.mark = mark
        self.message = message


def read_tree(text: str, variables: Mapping[str, str], report: Report) -> Node | None:
    """Return the only document in `text`, or None when it is empty; what can be skipped is told to `report`.

    Raises TreeError on what is no YAML, and on what is too deep or too large.
    """
    events = _events(text)
    _expect(events, yaml.StreamStartEvent)
    event = next(events)
    if isinstance(event, yaml.StreamEndEvent):
        return None
    root = _Builder(events, _BREAKS.split(text), variables, report).node(next(events), (), 0)
    _expect(events, yaml.DocumentEndEvent)
    after = next(events)
    if not isinstance(after, yaml.StreamEndEvent):
        raise TreeError(_mark(after), "a second document begins here; the configuration is one document")
    return root


def locate(root: Node | None, path: Path) -> Mark:
    """Return the place of what stands at `path`, or of the nearest thing around it that is there."""
    mark = root.mark if root else Mark(1, 1)
    node = root
    for step in path:
        node = _child(node, step)
        if node is None:
            break
        mark = node.mark
    return mark


def _child(node: Node | None, step: str | int) -> Node | None:
    if isinstance(node, Entries) and isinstance(step, str):
        return node.nodes.get(step)
    return node.nodes[step] if isinstance(node, Items) and isinstance(step, int) and step < len(node.nodes) else None


class _Builder:
    def __init__(
        self, events: Iterator[yaml.Event], lines: list[str], variables: Mapping[str, str], report: Report
    ) -> None:
        self._events, self._lines, self._variables, self._report = events, lines, variables, report
        self._anchors: dict[str, Node] = {}

    def node(self, event: Any, path: Path, depth: int) -> Node:
        mark = _mark(event)
        if depth > DEPTH_MAX:
            raise TreeError(mark, f"is nested more than {DEPTH_MAX} levels deep")
        if isinstance(event, yaml.AliasEvent):
            found = self._anchors.get(str(event.anchor))
            if found is None:
                message = "an alias (*name) without its anchor (&name) before it; quote a value that begins with *"
                self._report(path, mark, message)
                return Scalar(mark=mark, text="", plain=True, broken=True)
            return found
        node = self._built(event, mark, path, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _built(self, event: Any, mark: Mark, path: Path, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            if event.tag not in _TAGS:
                self._report(path, mark, "tags (!name) are not supported; quote a value that begins with !")
            return self._scalar(event, mark, path)
        if event.tag not in {None, "!"}:
            self._report(path, mark, "tags (!name) are not supported")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(mark, path, depth)
        return self._entries(mark, path, depth)

    def _scalar(self, event: yaml.ScalarEvent, mark: Mark, path: Path) -> Scalar:
        expansion = expand(event.value, self._variables)
        for failure in expansion.failures:
            self._report(path, self._mark_within(event, mark, failure.offset), failure.message)
        plain = event.style in {None, ""} and event.tag is None
        return Scalar(
            mark=mark,
            text=expansion.text,
            plain=plain,
            expanded=expansion.expanded,
            broken=bool(expansion.failures),
        )

    def _mark_within(self, event: yaml.ScalarEvent, mark: Mark, offset: int) -> Mark:
        """Return the place of a reference: exact on one line without escapes, else the scalar's."""
        line = self._lines[mark.line - 1] if mark.line <= len(self._lines) else ""
        start = mark.column - 1 + (0 if event.style in {None, ""} else 1)
        if line[start : start + offset + 2] == event.value[: offset + 2]:
            return Mark(mark.line, start + offset + 1)
        return mark

    def _items(self, mark: Mark, path: Path, depth: int) -> Items:
        nodes: list[Node] = []
        weight = 1
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            node = self.node(event, (*path, len(nodes)), depth + 1)
            weight = _checked(weight + node.weight, _mark(event))
            nodes.append(node)
        return Items(mark=mark, nodes=tuple(nodes), weight=weight)

    def _entries(self, mark: Mark, path: Path, depth: int) -> Entries:
        nodes: dict[str, Node] = {}
        marks: dict[str, Mark] = {}
        merged: list[tuple[Mark, Node]] = []
        weight = 1
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            at = _mark(event)
            key = self._key(event, path, depth)
            merge = key == "<<" and getattr(event, "style", None) in {None, ""}
            value = self.node(next(self._events), path if key is None or merge else (*path, key), depth + 1)
            weight = _checked(weight + 1 + value.weight, at)
            if key is None:
                continue
            if merge:
                merged.append((at, value))
            elif key in nodes:
                self._report((*path, key), at, f"the key is given twice, first in line {marks[key].line}; remove one")
            else:
                nodes[key], marks[key] = value, at
        for at, value in merged:
            self._merge(nodes, marks, value, path, at)
        return Entries(mark=mark, nodes=nodes, key_marks=marks, weight=weight)

    def _key(self, event: Any, path: Path, depth: int) -> str | None:
        mark = _mark(event)
        if isinstance(event, yaml.ScalarEvent):
            return str(event.value)
        self.node(event, path, depth + 1)
        self._report(path, mark, "a key must be a single word; quote a value that begins with {, [ or *")
        return None

    def _merge(self, nodes: dict[str, Node], marks: dict[str, Mark], value: Node, path: Path, at: Mark) -> None:
        """Take over what `<<: *anchor` names, where it is not given itself. Source: https://yaml.org/type/merge.html"""
        sources = value.nodes if isinstance(value, Items) else (value,)
        for source in sources:
            if not isinstance(source, Entries):
                self._report(path, at, "<< wants an alias of a mapping, such as <<: *defaults")
                continue
            for key, node in source.nodes.items():
                if key not in nodes:
                    nodes[key], marks[key] = node, source.key_marks[key]


def _events(text: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)
        line = "".join(_BREAKS.split(text)[at.line - 1 : at.line])
        hint = "; inside [ ] and { } put quotes around ${…}" if "${" in line else ""
        raise TreeError(at, f"is not YAML: {_without_values(error.problem or 'unreadable')}{hint}") from None
    except yaml.reader.ReaderError as error:
        before = _BREAKS.split(text[: error.position]) if isinstance(error.position, int) else [""]
        raise TreeError(Mark(len(before), len(before[-1]) + 1), "has a character that YAML does not allow") from None


def _without_values(problem: str) -> str:
    """Return a parser's message without what it quotes from the file, but for single characters."""
    return re.sub(r"'[^']*'", lambda match: match[0] if len(match[0]) <= 3 else "'…'", problem)  # noqa: PLR2004  with quotes


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _checked(weight: int, mark: Mark) -> int:
    if weight > NODES_MAX:
        raise TreeError(mark, f"has more than {NODES_MAX} values, counting what aliases repeat")
    return weight


def _expect(events: Iterator[yaml.Event], kind: type) -> None:
    event = next(events)
    if not isinstance(event, kind):
        raise TreeError(_mark(event), "is not YAML")
