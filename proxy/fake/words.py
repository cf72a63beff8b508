"""Plausible text, cut where the tokenizers of OpenAI's models cut it.

Every piece is exactly one token of cl100k_base and of o200k_base, alone and in its place in the text: whoever counts the
relayed text comes to the number of pieces. The text depends on the seed only.
"""

import random
from collections.abc import Sequence
from typing import Any

import orjson

_WORDS = (  # noqa: SIM905 - as a list literal these would be two hundred lines
    "the a of and to in is that it for on with as are this from by or be at not can one all which there more when "
    "other than some into only time over these most first two after year work way well where even new because any "
    "such good long own under great last same while each little between need before back through right still world "
    "place part small number hand point again never off home keep large group end begin life both since help line "
    "turn move live stand house page city play light story open next until side paper often always music mark book "
    "letter river care second enough plain young ready above red list though feel talk soon family direct leave song "
    "measure short class wind question complete ship area half order fire south problem piece whole best hour better "
    "true during five step early hold west interest reach fast budget cost price token money account balance amount "
    "record count limit report answer model"
).split()
_STARTS = ("The", "A", "In", "When", "There", "This", "Most", "After", "Because", "Some", "Each", "One", "It", "While")
_SENTENCE = (6, 14)  # words


def natural_length(rng: random.Random) -> int:
    """Return how many tokens an answer has that nobody limited: 40 to 120."""
    return rng.randint(40, 120)


def pieces(rng: random.Random, count: int) -> tuple[str, ...]:
    """Return `count` pieces of prose, each one token."""
    out: list[str] = []
    while len(out) < count:
        start = rng.choice(_STARTS)
        out.append(" " + start if out else start)
        out.extend(" " + rng.choice(_WORDS) for _ in range(rng.randint(*_SENTENCE)))
        out.append(".")
    return tuple(out[:count])


def arguments(rng: random.Random, schema: object) -> tuple[str, ...]:
    """Return a tool's arguments as JSON text in pieces: the required properties of `schema`, or all if none is."""
    text = orjson.dumps(_object(rng, schema)).decode()
    return tuple(text[at : at + 4] for at in range(0, len(text), 4))


def _object(rng: random.Random, schema: object) -> dict[str, Any]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or not isinstance(properties, dict):
        return {}
    required = schema.get("required")
    names = [n for n in required if n in properties] if isinstance(required, list) and required else list(properties)
    return {str(name): _value(rng, properties[name]) for name in names}


def _value(rng: random.Random, schema: object) -> object:
    if not isinstance(schema, dict):
        return rng.choice(_WORDS)
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return rng.choice(choices)
    simple: dict[str, object] = {"integer": 1, "number": 1.5, "boolean": True, "null": None, "array": [], "object": {}}
    kind = schema.get("type")
    return simple.get(kind, rng.choice(_WORDS)) if isinstance(kind, str) else rng.choice(_WORDS)


def vector(rng: random.Random, dimensions: int) -> Sequence[float]:
    """Return a vector of length one."""
    raw = [rng.uniform(-1, 1) for _ in range(dimensions)]
    norm = sum(x * x for x in raw) ** 0.5 or 1.0
    return [x / norm for x in raw]
