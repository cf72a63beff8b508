"""What an answer is founded on, as OpenAI's `url_citation` annotations; and log probabilities.

Google counts segments in UTF-8 bytes, OpenAI in characters.
Source: https://ai.google.dev/gemini-api/docs/google-search and https://platform.openai.com/docs/guides/tools-web-search
"""

from typing import Any

from adapters.base import JSON
from adapters.lenient import items, member, string

ANNOTATIONS_MAX = 1000
_NEVER = -9999.0  # OpenAI's number for a token that is out of the question


def annotations_of(grounding: JSON, text: bytes, part_starts: list[int]) -> list[JSON]:
    """Return the citations, each with an `index`, for a choice whose text is `text` and whose parts start at `part_starts`."""
    sources = [_source(chunk) for chunk in items(grounding.get("groundingChunks"))]
    found: list[JSON] = []
    for support in items(grounding.get("groundingSupports")):
        start, end = _span(member(support, "segment"), text, part_starts)
        places = support.get("groundingChunkIndices")
        found += [
            _citation(sources[place], start, end)
            for place in (places if isinstance(places, list) else [])
            if isinstance(place, int) and 0 <= place < len(sources) and sources[place]
        ]
    if not found:
        found = [_citation(source, 0, 0) for source in sources if source]
    return [{"index": index, **citation} for index, citation in enumerate(found[:ANNOTATIONS_MAX])]


def logprobs_of(result: Any) -> list[JSON]:
    """Return OpenAI's `logprobs.content` for a candidate's `logprobsResult`; empty if there is none."""
    if not isinstance(result, dict):
        return []
    chosen = items(result.get("chosenCandidates"))
    top = items(result.get("topCandidates"))
    return [
        {**_token(token), "top_logprobs": [_token(t) for t in items(top[i].get("candidates"))] if i < len(top) else []}
        for i, token in enumerate(chosen)
    ]


def _token(candidate: JSON) -> JSON:
    token, logprob = string(candidate.get("token")), candidate.get("logProbability")
    number = float(logprob) if isinstance(logprob, int | float) and not isinstance(logprob, bool) else None
    if number is None:
        number = 0.0 if "logProbability" not in candidate else _NEVER
    return {"token": token, "logprob": number, "bytes": list(token.encode())}


def _source(chunk: JSON) -> tuple[str, str] | None:
    for key in ("web", "retrievedContext", "maps", "image"):
        source = member(chunk, key)
        uri = string(source.get("uri")) or string(source.get("sourceUri"))
        if uri:
            return uri, string(source.get("title"))
    return None


def _span(segment: JSON, text: bytes, part_starts: list[int]) -> tuple[int, int]:
    part = _place(segment, "partIndex")
    base = part_starts[part] if part < len(part_starts) else 0
    start, end = (base + _place(segment, key) for key in ("startIndex", "endIndex"))
    return tuple(len(text[: min(at, len(text))].decode("utf-8", "ignore")) for at in (start, max(start, end)))  # type: ignore[return-value]  # two in, two out


def _place(segment: JSON, key: str) -> int:
    value = segment.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _citation(source: tuple[str, str] | None, start: int, end: int) -> JSON:
    uri, title = source or ("", "")
    citation = {"start_index": start, "end_index": end, "title": title, "url": uri}
    return {"type": "url_citation", "url_citation": citation}
