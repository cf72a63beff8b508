"""The provider that comes with Bursar: what `bursar demo` answers with, and what the tests misbehave with.

Only `kind: fake`, the demo and the tests import it; a sidecar in production never pays for it.
"""

from proxy.fake.invoice import Entry, Invoice
from proxy.fake.script import Script, ScriptError
from proxy.fake.server import FakeProvider, serve

__all__ = ["Entry", "FakeProvider", "Invoice", "Script", "ScriptError", "serve"]
