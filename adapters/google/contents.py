"""The conversation as Google's `contents` and `systemInstruction`.

Roles are user and model only. The results of one turn's calls stand alone in one user content, one for each call and in
the calls' order; what the user says besides is a content of its own. A signature goes back on the very part that it came
with. Source: https://ai.google.dev/api/caching#Content, https://ai.google.dev/gemini-api/docs/thought-signatures
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.base import JSON, Media
from adapters.conversation import Audio, Conversation, File, Image, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from adapters.errors import InvalidRequestError, UnsupportedParameterError
from adapters.google.models import Model
from adapters.google.reader import SIGNATURE_FORMAT, is_minted
from adapters.lenient import member, string
from adapters.media import Inline, inline, parse_data_url, parse_file_data, url_kind
from adapters.messages import normalise

SKIP_SIGNATURE = "skip_thought_signature_validator"  # Google's own word for a call whose signature is lost
NOTHING = " "  # a content must hold text, and text must not be empty
_AUDIO = {"mp3": "audio/mp3", "wav": "audio/wav", "pcm16": "audio/pcm"}
_ENDINGS = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "pdf": "application/pdf",
    "mp4": "video/mp4",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """What the writing of contents needs besides the conversation."""

    model: Model
    recall: Callable[[str], str | None]  # the id of a call -> its signature, if it is remembered
    media: Mapping[str, Media]


def contents_of(conversation: Conversation, writing: Writing) -> tuple[list[JSON], JSON | None]:
    """Return `contents` and `systemInstruction`. Raises InvalidRequestError and UnsupportedParameterError."""
    contents: list[JSON] = []
    system = [{"text": part.text} for part in conversation.system]
    if system and not writing.model.system:
        contents.append({"role": "user", "parts": system})
    for turn in conversation.turns:
        if turn.role == "assistant":
            _append(contents, "model", _model_parts(turn.parts, writing))
        else:  # a system message in the middle has no slot of its own: it keeps its place as a user's
            _user(contents, turn.parts, writing)
    if not contents or (contents[0]["role"] == "model" and "functionCall" in contents[0]["parts"][0]):
        contents.insert(0, {"role": "user", "parts": [{"text": NOTHING}]})
    return contents, {"parts": system} if system and writing.model.system else None


def wanted_urls(body: JSON, model: Model) -> tuple[str, ...]:
    """Return the URLs in a request that Google will not fetch itself, each once, in order; none of a wrong request."""
    try:
        turns = normalise(body).turns
    except InvalidRequestError:  # the building of the request tells the client what is wrong
        return ()
    urls: dict[str, None] = {}
    for turn in turns:
        for part in _flat(turn.parts):
            if (
                isinstance(part, Image)
                and url_kind(part.url) in {"https", "http"}
                and _by_reference(part, model) is None
            ):
                urls[part.url] = None
    return tuple(urls)


def _user(contents: list[JSON], parts: list[Part], writing: Writing) -> None:
    results = [part for part in parts if isinstance(part, ToolResult)]
    rest = [_part(part, writing) for part in parts if not isinstance(part, ToolResult)]
    if results:
        files: list[JSON] = []
        responses = [_response(result, writing, files) for result in results]
        early: list[JSON] = []  # what stands between the calls and these results: it must not part them
        while contents and contents[-1]["role"] == "user":
            early = [*contents.pop()["parts"], *early]
        earlier = [part for part in early if "functionResponse" in part]
        contents.append({"role": "user", "parts": [*earlier, *responses]})
        rest = [*(part for part in early if "functionResponse" not in part), *files, *rest]
    _append(contents, "user", rest)


def _append(contents: list[JSON], role: str, parts: list[JSON]) -> None:
    if not parts:
        return
    last = contents[-1] if contents else None
    if last and last["role"] == role and "functionResponse" not in last["parts"][0]:
        last["parts"] = [*last["parts"], *parts]
    else:
        contents.append({"role": role, "parts": parts})


def _model_parts(parts: list[Part], writing: Writing) -> list[JSON]:
    out: list[JSON] = []
    signatures: dict[str, str] = {}  # by the id of a call; "" for the text
    signed = False
    for part in parts:
        if isinstance(part, Reasoning):
            signatures = _echoed(part.details)
        elif isinstance(part, ToolCall):
            call = _call(part, signatures, writing)
            out.append(call)
            signed = signed or "thoughtSignature" in call
        else:
            native = _part(part, writing)
            signature = signatures.pop("", None)
            out.append({**native, "thoughtSignature": signature} if signature else native)
    first = next((part for part in out if "functionCall" in part), None)
    if first is not None and not signed and writing.model.signatures:
        first["thoughtSignature"] = SKIP_SIGNATURE
    return out


def _call(part: ToolCall, signatures: dict[str, str], writing: Writing) -> JSON:
    native: JSON = {"name": part.name, "args": part.arguments}
    if not is_minted(part.id):
        native["id"] = part.id
    google = member(part.extra.get("extra_content"), "google")
    signature = string(google.get("thought_signature")) or signatures.get(part.id) or writing.recall(part.id)
    return {"functionCall": native, "thoughtSignature": signature} if signature else {"functionCall": native}


def _echoed(details: list[JSON]) -> dict[str, str]:
    found: dict[str, str] = {}
    for detail in details:
        signature = string(detail.get("data")) or string(detail.get("signature"))
        if signature and detail.get("format") == SIGNATURE_FORMAT:
            found[string(detail.get("id"))] = signature
    return found


def _response(result: ToolResult, writing: Writing, files: list[JSON]) -> JSON:
    texts = [part.text for part in result.parts if isinstance(part, Text | Refusal)]
    media = [_part(part, writing) for part in result.parts if not isinstance(part, Text | Refusal)]
    native: JSON = {"name": result.name, "response": {"output": "\n".join(texts)}}
    if not is_minted(result.id):
        native["id"] = result.id
    if media and writing.model.media_in_results:
        native["parts"] = media
    else:
        files += media
    return {"functionResponse": native}


def _part(part: Part, writing: Writing) -> JSON:
    match part:
        case Text() | Refusal():
            return {"text": part.text}
        case Image():
            return _image(part, writing)
        case Audio():
            mime = _AUDIO.get(part.format, f"audio/{part.format}")
            return _inline(mime, parse_file_data(part.data, part.source))
        case File():
            return _file(part)
        case _:
            raise InvalidRequestError("This part cannot stand here.", param=part.source or "messages")


def _image(part: Image, writing: Writing) -> JSON:
    if url_kind(part.url) == "data":
        return _inline(None, parse_data_url(part.url, part.source))
    fetched = writing.media.get(part.url)
    if fetched is not None:
        return _inline(None, inline(fetched.data, fetched.mime))
    reference = _by_reference(part, writing.model)
    if reference is None:
        raise InvalidRequestError("This URL was not fetched, and the provider does not fetch it.", param=part.source)
    return {"fileData": reference}


def _by_reference(part: Image, model: Model) -> JSON | None:
    """Return the fileData for a URL that Google reads itself, else None."""
    kind, url = url_kind(part.url), part.url
    path = url.partition("?")[0].partition("#")[0]
    mime = _ENDINGS.get(path.rpartition(".")[2].lower())
    host = path.partition("://")[2].partition("/")[0].lower().removeprefix("www.")
    if kind == "https" and host in {"youtube.com", "youtu.be", "m.youtube.com"}:
        return {"mimeType": "video/mp4", "fileUri": url}
    if kind == "gs" or (kind == "https" and host == "generativelanguage.googleapis.com"):
        return {"mimeType": mime, "fileUri": url} if mime else {"fileUri": url}
    return {"mimeType": mime, "fileUri": url} if kind == "https" and mime and model.fetches_urls else None


def _file(part: File) -> JSON:
    if part.data is not None:
        return _inline(None, parse_file_data(part.data, part.source, part.filename))
    uri = part.file_id or ""
    if url_kind(uri) not in {"https", "gs"}:
        raise UnsupportedParameterError(part.source, "This provider takes a file's data or its URI, not an id.")
    mime = _ENDINGS.get((part.filename or uri).rpartition(".")[2].lower())
    return {"fileData": {"mimeType": mime, "fileUri": uri} if mime else {"fileUri": uri}}


def _inline(mime: str | None, file: Inline) -> JSON:
    return {"inlineData": {"mimeType": mime or file.mime, "data": file.base64}}


def _flat(parts: list[Part]) -> list[Any]:
    return [inner for part in parts for inner in (part.parts if isinstance(part, ToolResult) else [part])]
