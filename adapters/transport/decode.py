"""Undoes a content-encoding that was not asked for; some gateways compress whatever they are told.

A compressed answer may grow a thousandfold. Output leaves in small pieces, and past RATIO_MAX of what came in, or past
DECODED_BYTES_MAX in all, it is an error.
"""

import zlib

from adapters.errors import UpstreamProtocolError

PIECE_BYTES = 64 * 1024
RATIO_MAX = 100
FREE_BYTES = 1024 * 1024  # decoded bytes that are never judged by their ratio
DECODED_BYTES_MAX = 256 * 1024 * 1024
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's numbers for the three wrappings
_DEFLATE_METHOD, _METHOD_BITS = 8, 0x0F


class BodyDecoder:
    """Decodes gzip or deflate: `push` a piece, then call `pull` until it returns b""; `finish` at the end."""

    def __init__(self, encoding: str) -> None:
        self._gzip = encoding in {"gzip", "x-gzip"}
        self._inflate: zlib._Decompress | None = zlib.decompressobj(_GZIP) if self._gzip else None
        self._tail = b""
        self._taken = self._given = 0

    def push(self, piece: bytes) -> None:
        """Take a piece of the encoded body."""
        self._taken += len(piece)
        self._tail += piece

    def pull(self) -> bytes:
        """Return the next decoded bytes, b"" when more are needed. Raises UpstreamProtocolError."""
        if not self._tail and (self._inflate is None or self._inflate.eof):
            return b""
        inflate = self._inflate
        if inflate is None:
            inflate = self._inflate = zlib.decompressobj(
                _ZLIB if self._tail[0] & _METHOD_BITS == _DEFLATE_METHOD else _RAW
            )
        if inflate.eof:
            raise UpstreamProtocolError("the provider's compressed response does not end where it should")
        try:
            out = inflate.decompress(self._tail, PIECE_BYTES)
        except zlib.error as error:
            raise UpstreamProtocolError("the provider's response is not compressed as it says") from error
        self._tail = inflate.unconsumed_tail or inflate.unused_data
        self._given += len(out)
        if self._given > min(max(FREE_BYTES, self._taken * RATIO_MAX), DECODED_BYTES_MAX):
            raise UpstreamProtocolError("the provider's compressed response is too large")
        return out

    def finish(self) -> None:
        """Tell that the encoded body has ended. Raises UpstreamProtocolError if it is cut off."""
        if self._taken and (self._inflate is None or not self._inflate.eof):
            raise UpstreamProtocolError("the provider's compressed response is cut off")


def decoder_for(headers: dict[str, str], *, bodiless: bool) -> BodyDecoder | None:
    """Return what undoes the response's encoding, and drop from `headers` those that will no longer hold.

    Raises UpstreamProtocolError for an encoding that is not known.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in {"", "identity"} or bodiless:
        return None
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise UpstreamProtocolError("the provider's response has a content-encoding that was not asked for")
    del headers["content-encoding"]
    headers.pop("content-length", None)
    return BodyDecoder(encoding)
