"""The content of one message: a string or a list of parts, as the parts of `adapters.conversation`.

Empty text is no part at all: several providers refuse it. A part that is of no known type is the client's error.
Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from typing import Any, NoReturn

from adapters.base import JSON
from adapters.conversation import Audio, File, Image, Part, Refusal, Text, cache_of
from adapters.errors import InvalidRequestError


def content_of(message: JSON, path: str) -> list[Part]:
    """Return the parts of a message at `path`; a message's own cache point lies behind its last part.

    Raises InvalidRequestError.
    """
    content, path = message.get("content"), f"{path}.content"
    cache = cache_of(message) if message.get("role") not in ("tool", "function") else None
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(text=content, cache=cache, source=path)] if content else []
    if not isinstance(content, list):
        raise InvalidRequestError(f"'{path}' must be a string or a list of parts.", param=path)
    parts: list[Part] = []
    for index, part in enumerate(content):
        last = cache if index == len(content) - 1 else None  # a message's cache point lies behind its last part
        parts += _part(part, f"{path}[{index}]", last)
    return parts


def _part(part: Any, path: str, cache: JSON | None) -> list[Part]:
    if isinstance(part, str):
        return [Text(text=part, cache=cache, source=path)] if part else []
    if not isinstance(part, dict):
        raise InvalidRequestError(f"'{path}' must be an object.", param=path)
    cache = cache_of(part) or cache
    kind = part.get("type")
    if kind == "text":
        text = string_at(part, "text", path, empty=True)
        return [Text(text=text, cache=cache, source=path)] if text else []
    if kind == "refusal":
        text = string_at(part, "refusal", path, empty=True)
        return [Refusal(text=text, source=path)] if text else []
    if kind == "image_url":
        return [_image(part, path, cache)]
    if kind == "file":
        return [_file(part, path, cache)]
    if kind == "input_audio":
        audio = _object(part, "input_audio", path)
        where = f"{path}.input_audio"
        return [Audio(data=string_at(audio, "data", where), format=string_at(audio, "format", where), source=where)]
    return _unknown(kind, path)


def _unknown(kind: Any, path: str) -> NoReturn:
    shown = kind if isinstance(kind, str) and len(kind) <= 40 and kind.isprintable() else "of no type"  # noqa: PLR2004 - a type's name is short
    raise InvalidRequestError(f"Content parts '{shown}' are not known.", param=f"{path}.type")


def _image(part: JSON, path: str, cache: JSON | None) -> Image:
    where, value = f"{path}.image_url", part.get("image_url")
    if isinstance(value, str):  # many clients leave the object out
        return Image(url=value, cache=cache, source=where)
    image = _object(part, "image_url", path)
    detail = image.get("detail")
    url = string_at(image, "url", where)
    return Image(url=url, detail=detail if isinstance(detail, str) else None, cache=cache, source=f"{where}.url")


def _file(part: JSON, path: str, cache: JSON | None) -> File:
    file = _object(part, "file", path)
    where = f"{path}.file"
    texts = {key: v for key in ("file_data", "file_id", "filename") if isinstance(v := file.get(key), str) and v}
    if "file_data" not in texts and "file_id" not in texts:
        raise InvalidRequestError(f"'{where}' needs file_data or file_id.", param=where)
    return File(
        data=texts.get("file_data"),
        file_id=texts.get("file_id"),
        filename=texts.get("filename"),
        cache=cache,
        source=f"{where}.file_data" if "file_data" in texts else f"{where}.file_id",
    )


def _object(holder: JSON, key: str, path: str) -> JSON:
    value = holder.get(key)
    if not isinstance(value, dict):
        raise InvalidRequestError(f"'{path}.{key}' must be an object.", param=f"{path}.{key}")
    return value


def string_at(holder: JSON, key: str, path: str, *, empty: bool = False) -> str:
    """Return the string under `key` of the object at `path`. Raises InvalidRequestError for all else, "" too."""
    value = holder.get(key)
    if not isinstance(value, str) or not (value or empty):
        raise InvalidRequestError(
            f"'{path}.{key}' must be a string{'' if empty else ' with text in it'}.", param=f"{path}.{key}"
        )
    return value
