"""Reads the configuration: `-c FILE`, else `$BURSAR_CONFIG`, else `./bursar.yaml`, else the environment.

The file is read and checked whole: every problem is reported, each with its place, before anything starts. What is
returned has passed every check; nothing has been connected to.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

import msgspec

from adapters.credentials.base import Secret
from proxy.config.check import check
from proxy.config.decode import INVALID, Decoder
from proxy.config.environment import SOURCE, CallDefaults, from_environment, variable_of
from proxy.config.model import Config
from proxy.config.problem import ConfigError, Finding, Path, Problem, dotted
from proxy.config.providers import kind_of
from proxy.config.routes import default_models
from proxy.config.tree import Entries, Mark, Node, TreeError, locate, read_tree

FILE_BYTES_MAX = 2**20
FILE_NAME = "bursar.yaml"
FILE_VARIABLE = "BURSAR_CONFIG"
PROBLEMS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration that passed every check; `source` is the file's name, or `environment`."""

    config: Config
    source: str
    defaults: CallDefaults


def load(file: str | None = None, variables: Mapping[str, str] | None = None) -> Loaded:
    """Return the configuration of `file`, or of the first place that has one. Raises ConfigError with all problems."""
    known: Mapping[str, str] = os.environ if variables is None else variables  # noqa: TID251  the one place
    chosen = file or known.get(FILE_VARIABLE) or (FILE_NAME if FilePath(FILE_NAME).is_file() else None)
    if chosen is None:
        return load_environment(known)
    return load_text(_read(chosen), chosen, known)


def load_environment(variables: Mapping[str, str]) -> Loaded:
    """Return the configuration that the variables alone make. Raises ConfigError."""
    found = from_environment(variables)
    findings = [*found.findings]
    if not found.config.providers and not findings:
        findings.append(Finding(path=(), message="no provider is configured; set OPENAI_API_KEY, or run `bursar init`"))
    elif found.config.providers:
        findings += check(found.config, own_names=_own_names())
    if findings:
        raise ConfigError(_problem(SOURCE, Mark(0, 0), variable_of(each.path), each.message) for each in findings)
    return Loaded(config=found.config, source=SOURCE, defaults=found.defaults)


def load_text(text: str | bytes, file: str, variables: Mapping[str, str]) -> Loaded:
    """Return the configuration that YAML text makes; `file` names it in problems. Raises ConfigError."""
    reading = _Reading(file)
    root = reading.tree(text, variables)
    config = reading.config(root, variables)
    if reading.problems:
        ordered = sorted(set(reading.problems), key=lambda each: (each.line, each.column, each.path))
        raise ConfigError(ordered[:PROBLEMS_MAX])
    return Loaded(config=config, source=file, defaults=CallDefaults())


class _Reading:
    """One file on its way to a Config, and what was wrong with it so far."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._paths: list[Path] = []
        self.problems: list[Problem] = []

    def report(self, path: Path, mark: Mark, message: str) -> None:
        self._paths.append(path)
        self.problems.append(_problem(self._file, mark, path, message))

    def tree(self, text: str | bytes, variables: Mapping[str, str]) -> Node | None:
        """Return the tree of the text. Raises ConfigError where reading must stop."""
        try:
            return read_tree(_decoded(text), variables, self.report)
        except TreeError as error:
            self.report((), error.mark, error.message)
            raise ConfigError(self.problems) from None

    def config(self, root: Node | None, variables: Mapping[str, str]) -> Config:
        """Return the configuration of the tree, as far as it can be read, with all findings reported."""
        decoder = Decoder(self.report)
        config = Config() if root is None else decoder.decode(root, Config, ())
        if config is INVALID:
            return Config()
        config = _completed(config, root, variables)
        reported = list(self._paths)
        for finding in check(config, own_names=_own_names()):
            path = _original(finding.path, decoder.renumbered)
            if not any(_concerns(path, bad) for bad in reported):
                self.report(path, locate(root, path), finding.message)
        return config


def _completed(config: Config, root: Node | None, variables: Mapping[str, str]) -> Config:
    """Fill in the defaults that depend on other settings or on the environment."""
    ops = root.nodes.get("ops") if isinstance(root, Entries) else None
    if not (isinstance(ops, Entries) and "admin_token" in ops.nodes):
        token = Secret(variables.get("BURSAR_ADMIN_TOKEN", ""))
        config = msgspec.structs.replace(config, ops=msgspec.structs.replace(config.ops, admin_token=token))
    if isinstance(root, Entries) and "models" in root.nodes:
        return config
    kinds = {name: kind_of(provider) for name, provider in config.providers.items() if "/" not in name}
    return msgspec.structs.replace(config, models=default_models(kinds))


def _original(path: Path, renumbered: Mapping[Path, tuple[int, ...]]) -> Path:
    """Return the path in the file of a path in the struct, where items that could not be read are missing."""
    out: Path = ()
    for step in path:
        kept = renumbered.get(out)
        out = (*out, kept[step] if kept and isinstance(step, int) else step)
    return out


def _concerns(path: Path, bad: Path) -> bool:
    """Tell whether a finding may only follow from what is already reported at `bad`."""
    if path[: len(bad)] == bad or bad[: len(path)] == path:
        return True
    return bad[:1] == ("providers",) and len(bad) == 1 and path[:1] != ("providers",)


def _read(file: str) -> bytes:
    try:
        with FilePath(file).open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
        message = f"cannot be read ({reason}); name a file with -c, or write one with `bursar init`"
        raise ConfigError([_problem(file, Mark(0, 0), (), message)]) from None
    return data


def _decoded(data: str | bytes) -> str:
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    if len(raw) > FILE_BYTES_MAX:
        raise TreeError(Mark(1, 1), f"is larger than {FILE_BYTES_MAX} bytes")
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        good = raw[: error.start].decode("utf-8", "replace").split("\n")
        raise TreeError(Mark(len(good), len(good[-1]) + 1), "is not UTF-8 text") from None


def _own_names() -> frozenset[str]:
    return frozenset({socket.gethostname()} - {""})


def _problem(file: str, mark: Mark, path: Path, message: str) -> Problem:
    return Problem(file=file, line=mark.line, column=mark.column, path=dotted(path), message=message)
