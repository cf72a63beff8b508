"""The tree as structs: each setting's type says how its text is read, and every problem is kept, not only the first.

What cannot be read is left out (a field takes its default, an item is dropped), so that the rest can still be checked;
`renumbered` says which items of a sequence remain. Values are repeated in a message only if almost a valid word.
"""

import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import yaml.resolver

from proxy.config.problem import Path, nameable, nearest
from proxy.config.tree import Entries, Items, Mark, Node, Report, Scalar

INVALID: Any = object()  # what `decode` returns for a value that was reported

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_RESOLVER: Any = yaml.resolver.Resolver()


class Decoder:
    """One reading of one tree; tells problems to `report` by path, place and message."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.renumbered: dict[Path, tuple[int, ...]] = {}

    def decode(self, node: Node, kind: Any, path: Path) -> Any:
        """Return the value of `kind` that the node spells, or INVALID."""
        metas, bare = _unwrapped(kind)
        if isinstance(node, Scalar) and node.broken:
            return INVALID
        if bare is Any:
            return self._untyped(node, path)
        if _is_union(bare):
            return self._union(node, bare, metas, path)
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            return self._struct(node, bare, path)
        if get_origin(bare) is tuple:
            return self._sequence(node, get_args(bare)[0], path)
        if get_origin(bare) is dict:
            return self._mapping(node, get_args(bare)[1], path)
        if not isinstance(node, Scalar):
            return self._wrong(path, node.mark, f"wants a single value, has a {_shape(node)}")
        return self._scalar(node, bare, metas, path)

    def _union(self, node: Node, bare: Any, metas: list[msgspec.Meta], path: Path) -> Any:
        kinds = [kind for kind in get_args(bare) if kind is not types.NoneType]
        if len(kinds) < len(get_args(bare)) and _is_null(node):
            return None
        for kind in kinds:
            if _shape_of_kind(kind) == _shape(node):
                return self.decode(node, _rewrapped(kind, metas), path)
        if len(kinds) == 1:
            return self.decode(node, _rewrapped(kinds[0], metas), path)
        return self._wrong(
            path, node.mark, f"wants a {' or a '.join(map(_shape_of_kind, kinds))}, has a {_shape(node)}"
        )

    def _struct(self, node: Node, kind: type[msgspec.Struct], path: Path) -> Any:
        if not isinstance(node, Entries):
            return self._wrong(path, node.mark, f"wants a mapping (key: value), has a {_shape(node)}")
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        values: dict[str, Any] = {}
        complete = True
        for name, child in node.nodes.items():
            field = fields.get(name)
            if field is None:
                self._unknown_key((*path, name), node.key_marks[name], fields)
            elif not (_is_null(child) and not field.required):
                value = self.decode(child, field.type, (*path, name))
                if value is not INVALID:
                    values[field.name] = value
                elif field.required:
                    complete = False
        missing = [name for name, field in fields.items() if field.required and name not in node.nodes]
        if missing:
            self._wrong(path, node.mark, f"needs {' and '.join(missing)}")
        return kind(**values) if complete and not missing else INVALID

    def _unknown_key(self, path: Path, mark: Mark, known: Mapping[str, Any]) -> None:
        near = nearest(str(path[-1]), known)
        hint = f"nearest valid key: {near}" if near else f"valid keys: {', '.join(known)}"
        self._report(path, mark, f"unknown key {nameable(str(path[-1]))}; {hint}")

    def _sequence(self, node: Node, kind: Any, path: Path) -> Any:
        if _is_null(node):
            return ()
        if not isinstance(node, Items):
            return self._wrong(
                path, node.mark, f"wants a list ([a, b] or lines that begin with -), has a {_shape(node)}"
            )
        decoded = [self.decode(child, kind, (*path, index)) for index, child in enumerate(node.nodes)]
        kept = tuple(index for index, value in enumerate(decoded) if value is not INVALID)
        if len(kept) < len(decoded):
            self.renumbered[path] = kept
        return tuple(decoded[index] for index in kept)

    def _mapping(self, node: Node, kind: Any, path: Path) -> Any:
        if _is_null(node):
            return {}
        if not isinstance(node, Entries):
            return self._wrong(path, node.mark, f"wants a mapping (name: value), has a {_shape(node)}")
        decoded = {name: self.decode(child, kind, (*path, name)) for name, child in node.nodes.items()}
        return {name: value for name, value in decoded.items() if value is not INVALID}

    def _scalar(self, node: Scalar, kind: Any, metas: list[msgspec.Meta], path: Path) -> Any:
        if _is_null(node):
            return self._wrong(path, node.mark, "wants a value, has none")
        extra = {key: value for meta in metas for key, value in (meta.extra or {}).items()}
        choices = get_args(kind) if get_origin(kind) is Literal else extra.get("choices")
        if choices is not None:
            return self._choice(node, choices, path)
        if kind is bool:
            return self._boolean(node, path)
        if not (node.plain or node.expanded or extra.get("quoted")):
            return self._wrong(path, node.mark, "wants a number without quotes")
        try:
            return extra["parse"](node.text)
        except ValueError as error:
            return self._wrong(path, node.mark, str(error))

    def _choice(self, node: Scalar, choices: tuple[str, ...], path: Path) -> Any:
        if node.text in choices:
            return node.text
        near = None if node.expanded else nearest(node.text, choices)
        found = f"{nameable(node.text)} is not known; nearest: {near}; " if near else ""
        return self._wrong(path, node.mark, f"{found}wants one of {', '.join(choices)}")

    def _boolean(self, node: Scalar, path: Path) -> Any:
        if node.text in _TRUE | _FALSE and (node.plain or node.expanded):
            return node.text in _TRUE
        return self._wrong(path, node.mark, "wants true or false")

    def _untyped(self, node: Node, path: Path) -> Any:
        """Return any JSON value, with scalars typed as YAML does."""
        if isinstance(node, Items):
            return [self._untyped(child, (*path, index)) for index, child in enumerate(node.nodes)]
        if isinstance(node, Entries):
            return {name: self._untyped(child, (*path, name)) for name, child in node.nodes.items()}
        if not node.plain:
            return node.text
        tag = _RESOLVER.resolve(yaml.ScalarNode, node.text, (True, False)).rpartition(":")[2]
        if tag == "null" or node.text in _TRUE | _FALSE:
            return None if tag == "null" else node.text in _TRUE
        number = {"int": int, "float": float}.get(tag)
        try:
            value = number(node.text) if number else node.text
        except ValueError:
            return node.text
        return node.text if isinstance(value, float) and not math.isfinite(value) else value

    def _wrong(self, path: Path, mark: Mark, message: str) -> Any:
        self._report(path, mark, message)
        return INVALID


def _unwrapped(kind: Any) -> tuple[list[msgspec.Meta], Any]:
    metas: list[msgspec.Meta] = []
    while get_origin(kind) is Annotated:
        kind, *found = get_args(kind)
        metas += found
    return metas, kind


def _rewrapped(kind: Any, metas: list[msgspec.Meta]) -> Any:
    return Annotated[kind, *metas] if metas else kind


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in {typing.Union, types.UnionType}


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.text in _NULLS and not node.broken


def _shape(node: Node) -> str:
    return {Scalar: "single value", Items: "list", Entries: "mapping"}[type(node)]


def _shape_of_kind(kind: Any) -> str:
    bare = _unwrapped(kind)[1]
    if get_origin(bare) is tuple:
        return "list"
    is_mapping = get_origin(bare) is dict or (isinstance(bare, type) and issubclass(bare, msgspec.Struct))
    return "mapping" if is_mapping else "single value"
