"""The clock seam: the shipped scripts with the server's clock replaced by a key that a test sets, over a blocking socket."""

import re
import socket
from functools import cache
from typing import Any

import hiredis

from accounting.store.scripts import script

NOW = "now"  # the key: epoch milliseconds
_TIME = re.compile(r"(?:redis\.)?call\('TIME'\)")
_SEAM = "(function() local n = tonumber(redis.call('GET', '{now}')) return {{ math.floor(n / 1000), (n % 1000) * 1000 }} end)()"


class ScriptFailedError(Exception):
    """The server answered with an error."""


@cache
def text(name: str, *, root: str = "") -> str:
    """The text of a script, with its clock replaced; `root` is where the clock's key lies."""
    return _TIME.sub(lambda _: _SEAM.format(now=root + NOW), script(name).text)


class Clocked:
    """Runs scripts and commands; sets the clock."""

    def __init__(self, path: str, root: str = "") -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._reader, self._root, self._shas = hiredis.Reader(), root, {}
        self.now_ms = 0

    def __call__(self, *command: Any) -> Any:
        reply = self.pipe([command])[0]
        if isinstance(reply, hiredis.ReplyError):
            raise ScriptFailedError(str(reply))
        return reply

    def pipe(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        self._socket.sendall(b"".join(hiredis.pack_command(tuple(c)) for c in commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._socket.recv(1 << 16))
            else:
                replies.append(reply)
        return replies

    def at(self, now_ms: int) -> None:
        """Set the clock."""
        self.now_ms = now_ms
        self("SET", self._root + NOW, now_ms)

    def run(self, name: str, keys: list[str], args: list[Any]) -> Any:
        if name not in self._shas or not self("SCRIPT", "EXISTS", self._shas[name])[0]:
            self._shas[name] = self("SCRIPT", "LOAD", text(name, root=self._root))
        return self("EVALSHA", self._shas[name], len(keys), *keys, *args)

    def close(self) -> None:
        self._socket.close()
