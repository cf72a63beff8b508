"""OpenAI's JSON to and from providers' wire formats, the transport, and the client library on top.

The library's names (`create_client`, `LLMMessage`, … see `adapters.clients`) may be imported from here; importing this alone
imports none of them, and nothing of `accounting`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.clients import *  # noqa: F403 - its __all__ is the list


def __getattr__(name: str) -> Any:
    if name == "clients" or name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    clients = importlib.import_module(f"{__name__}.clients")
    if name not in clients.HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(clients, name)
