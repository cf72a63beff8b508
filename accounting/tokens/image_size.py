"""The width and height of a picture, read from the first bytes of the file.

Pure, and bounded: looks at no more than the bytes given. A file that is none of PNG, JPEG, GIF and WebP, or is cut short
before its size, has no size here; whoever asks then counts the largest picture.
"""

from typing import TypeAlias

Size: TypeAlias = tuple[int, int]  # width, height in pixels

HEAD_BYTES = 192 * 1024  # reaches the size behind a JPEG's usual metadata
_JPEG_SEGMENTS_MAX = 512
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # every start-of-frame marker
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}  # markers without a length


def image_size(head: bytes) -> Size | None:
    """Return the size that the file's header tells, None when it tells none."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        size = _numbers(head, 16, 20, width_bytes=4, order="big")
    elif head.startswith((b"GIF87a", b"GIF89a")):
        size = _numbers(head, 6, 8, width_bytes=2, order="little")
    elif head.startswith(b"\xff\xd8"):
        size = _jpeg(head)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        size = _webp(head)
    else:
        return None
    return size if size and min(size) > 0 else None


def _numbers(head: bytes, width_at: int, height_at: int, *, width_bytes: int, order: str) -> Size | None:
    if len(head) < height_at + width_bytes:
        return None
    little = order == "little"
    width, height = head[width_at : width_at + width_bytes], head[height_at : height_at + width_bytes]
    return (
        int.from_bytes(width, "little" if little else "big"),
        int.from_bytes(height, "little" if little else "big"),
    )


def _jpeg(head: bytes) -> Size | None:
    """Walk the segments to the frame header. Source: https://www.w3.org/Graphics/JPEG/itu-t81.pdf B.1, B.2.2."""
    at = 2
    for _ in range(_JPEG_SEGMENTS_MAX):
        while head[at : at + 2] == b"\xff\xff":  # fill bytes may stand before any marker
            at += 1
        if len(head) < at + 4 or head[at] != 0xFF:  # noqa: PLR2004 - every marker starts so
            return None
        marker = head[at + 1]
        if marker in _JPEG_FRAMES:
            swapped = _numbers(head, at + 5, at + 7, width_bytes=2, order="big")
            return (swapped[1], swapped[0]) if swapped else None  # height comes first
        at += 2 if marker in _JPEG_BARE else 2 + max(2, int.from_bytes(head[at + 2 : at + 4], "big"))
    return None


def _webp(head: bytes) -> Size | None:
    """Read any of the three chunks that a WebP starts with. Source: RFC 9649."""
    kind = head[12:16]
    if kind == b"VP8X" and len(head) >= 30:  # noqa: PLR2004
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L" and len(head) >= 25:  # noqa: PLR2004
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        size = _numbers(head, 26, 28, width_bytes=2, order="little")
        return (size[0] & 0x3FFF, size[1] & 0x3FFF) if size else None
    return None
