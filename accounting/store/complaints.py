"""What the store's error replies mean: go elsewhere, come again, or a mistake of ours. Pure.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding
"""

import re
from dataclasses import replace

from accounting.store.resp import Address
from accounting.store.url import StoreUrl

NOT_NOW = (
    "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "OOM", "READONLY", "MISCONF",
    "MOVED", "ASK",  # to where we could not follow
    "NOSCRIPT",  # and no time was left to send its text
    "NOPERM", "NOAUTH",  # somebody changes the server's users: what is to be settled must not be dropped for that
)  # fmt: skip
WRONG_NODE = ("READONLY", "MASTERDOWN")
_IN_SCRIPT = re.compile(
    r"^ERR Error running script .*: -([A-Z]+) ", re.DOTALL
)  # how Redis 6 tells what went wrong inside one


def read_error(error: str, url: StoreUrl | None) -> tuple[str, Address | None]:
    """Return an error's code, and for `MOVED slot host:port` and ASK where to go."""
    if inside := _IN_SCRIPT.match(error):
        return inside[1], None
    words = error.split()
    if len(words) != 3 or words[0] not in ("MOVED", "ASK") or url is None or not url.addresses:  # noqa: PLR2004
        return words[0] if words else "", None
    host, _, port = words[2].rpartition(":")
    if not port.isdigit():
        return words[0], None
    known = url.addresses[0]  # a host that the server does not know itself is the one that we asked
    return words[0], replace(known, host=known.host if host in ("", "?") else host.strip("[]"), port=int(port))
