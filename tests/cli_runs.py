"""Running `bursar` commands for the tests: in this process, on a configuration file whose store the tests own."""

import asyncio
import itertools
import json
import os
from dataclasses import dataclass

from proxy.__main__ import main

_numbers = itertools.count()


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class Shell:
    """Runs commands with one configuration file."""

    def __init__(self, capsys, config=None):
        self.capsys, self.config = capsys, config

    def __call__(self, *words):
        self.capsys.readouterr()
        verbs = 2 if words[0] in ("key", "budget", "prices") else 1
        named = ["-c", str(self.config)] if self.config and words[0] != "inject" else []
        try:
            code = main([*words[:verbs], *named, *words[verbs:]])
        except SystemExit as ended:
            code = ended.code
        out, err = self.capsys.readouterr()
        return Ran(code, out, err)

    async def beside(self, *words):
        """Run a command while the loop serves."""
        return await asyncio.to_thread(self, *words)


def written(
    tmp_path,
    store,
    more="",
    keys="",
    budgets="",
    providers="providers: {fake: {kind: fake}}",
    models='models: {"*": fake/*, fake-1: fake/fake-1}',
):
    """Write a configuration on the shared store, under a prefix of its own; return its path."""
    prefix = f"cli{os.getpid()}x{next(_numbers)}"
    path = tmp_path / "bursar.yaml"
    path.write_text(
        f'listen: 127.0.0.1:0\nops: {{listen: "127.0.0.1:0"}}\n'
        f'store: {{url: "{store.url}", prefix: "{prefix}", data_dir: "{tmp_path / "data"}"}}\n'
        f"{providers}\n{models}\n{keys}\n{budgets}\n{more}\n"
    )
    return path


def shell_of(capsys, tmp_path, house):
    """Return a shell with the configuration of a running house."""
    path = tmp_path / "house.yaml"
    path.write_text(house.text)
    return Shell(capsys, path)
