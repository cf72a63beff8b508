"""Count the output tokens of an answer that is being relayed, for when the provider never says.

Feeding only keeps the text: nothing is counted per chunk. What was counted once stays counted; the text after the last
word's end is kept, since the next chunk may change how it is cut into tokens. The count is at or above what the model's
own tokenizer gives for the text. Hidden reasoning cannot be seen, hence not counted.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

from accounting.tokens.families import Family, family_of
from accounting.tokens.text import byte_count, count_text, word_end

JSON: TypeAlias = dict[str, Any]
Place: TypeAlias = tuple[int, str, int]  # choice, kind of text, which of several

HELD_CHARS_MAX = 32 * 1024  # of text not yet counted, before it is counted unasked
REST_CHARS_MAX = 32 * 1024  # of a text without a word's end, before it is cut anyway
PARTS_MAX = 64  # of one text, before they are joined: a short string takes ten times its length
PLACES_MAX = 512  # texts kept apart; a provider that invents more has them counted together
# Marks that are output too, though no text: around a tool call, before an answer that follows reasoning, at the end.
# The first number is OpenAI's, the second is at or above what other vendors were seen to take.
CALL_TOKENS = (16, 40)
REASONED_TOKENS = (12, 12)
ANSWER_TOKENS = (0, 4)  # OpenAI bills the text itself, seen in 8 of 10 recorded answers, else one or two more
SOUND_CHARS_PER_TOKEN = (
    1600  # base64 of pcm16 at 24 kHz: 64,000 characters a second, 20 tokens a second; half for safety
)
_PLAIN = frozenset({"role", "content"})
_OVERFLOW: Place = (-1, "rest", 0)


class OutputCount:
    """The output of one call to one model, all its choices. Not for several threads at once."""

    def __init__(self, model: str) -> None:
        self._family = family_of(model)
        self._texts: dict[Place, _Text] = {}
        self._calls: set[Place] = set()
        self._choices: set[int] = set()
        self._sound_chars = 0
        self._marks: int | None = None  # what `_fixed` returned, while that holds
        self.bytes = 0  # of text so far, in UTF-8
        self._held_chars = 0

    def feed(self, chunk: JSON) -> None:
        """Take a chunk or a whole completion of OpenAI's form (chat, completions or responses); ignores all else."""
        choices = chunk.get("choices")
        only = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
        delta = only.get("delta") if isinstance(only, dict) and "text" not in only else None
        if only and isinstance(delta, dict) and delta.keys() <= _PLAIN and not isinstance(delta.get("content"), list):
            if isinstance(delta.get("content"), str):  # as nearly all are; `_pieces` would say the same
                self._add((_index(only, 0), "content", 0), delta["content"])
        else:
            for place, text in _pieces(chunk):
                self._add(place, text)
        if self._held_chars > HELD_CHARS_MAX:
            self.tokens()

    def tokens(self) -> int:
        """Return the tokens so far, over all choices; loads ranks if need be."""
        self._held_chars = 0
        return self._fixed() + sum(text.tokens(self._family) for text in self._texts.values())

    def tokens_of(self, choice: int) -> int:
        """Return the tokens of one choice so far, without its marks."""
        return sum(text.tokens(self._family) for place, text in self._texts.items() if place[0] == choice)

    @property
    def upper_bound(self) -> int:
        """No more tokens than this were given so far: one per byte. Costs nothing, loads nothing."""
        marks = self._marks
        return (self._fixed() if marks is None else marks) + self.bytes

    def _add(self, place: Place, text: str) -> None:
        choice, kind, _ = place
        if place not in self._texts:
            self._marks = None
        if len(self._choices) < PLACES_MAX:
            self._choices.add(choice)
        if kind == "sound":
            self._sound_chars += len(text)
            return
        if kind == "call" and len(self._calls) < PLACES_MAX:
            self._calls.add(place)
        if not text:
            return
        if place not in self._texts and len(self._texts) >= PLACES_MAX:
            place = _OVERFLOW
        parts = self._texts.setdefault(place, _Text()).parts
        parts.append(text)
        if len(parts) >= PARTS_MAX:
            parts[:] = ["".join(parts)]
        self.bytes += byte_count(text)
        self._held_chars += len(text)

    def _fixed(self) -> int:
        if self._marks is not None:
            return self._marks
        sound = -(-self._sound_chars // SOUND_CHARS_PER_TOKEN)
        other = not self._family.exact
        reasoned = REASONED_TOKENS[other] if any(place[1] == "reasoning" for place in self._texts) else 0
        self._marks = (
            len(self._choices) * (ANSWER_TOKENS[other] + reasoned) + len(self._calls) * CALL_TOKENS[other] + sound
        )
        return self._marks


class _Text:
    """One growing text: a counted part that is let go, and the rest."""

    __slots__ = ("_counted", "_counted_bytes", "_rest_tokens", "parts")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._counted = 0
        self._counted_bytes = 0
        self._rest_tokens = 0

    def tokens(self, family: Family) -> int:
        if len(self.parts) > 1 or (self.parts and not self._rest_tokens):
            text = "".join(self.parts)
            end = word_end(text, 0, len(text))
            if end < len(text) or len(text) > REST_CHARS_MAX:
                self._counted += count_text(text[:end], family.encoding)
                self._counted_bytes += byte_count(text[:end])
                text = text[end:]
            self.parts = [text] if text else []
            self._rest_tokens = count_text(text, family.encoding)
        count = self._counted + self._rest_tokens
        if family.margin_percent == 100:  # noqa: PLR2004
            return count
        held_bytes = sum(map(byte_count, self.parts))
        return min(self._counted_bytes + held_bytes, -(-count * family.margin_percent // 100))


def _pieces(chunk: JSON) -> Iterator[tuple[Place, str]]:
    choices = chunk.get("choices")
    if isinstance(choices, list):
        for position, choice in enumerate(choices):
            if isinstance(choice, dict):
                yield from _choice_pieces(choice, _index(choice, position))
        return
    kind, delta = chunk.get("type"), chunk.get("delta")
    if isinstance(kind, str) and isinstance(delta, str) and kind.endswith(".delta"):
        yield (0, kind, _index(chunk, 0, "output_index")), delta
    output = chunk.get("output")
    for position, item in enumerate(output if isinstance(output, list) else ()):
        if isinstance(item, dict):
            yield from _item_pieces(item, position)


def _choice_pieces(choice: JSON, index: int) -> Iterator[tuple[Place, str]]:
    if isinstance(choice.get("text"), str):
        yield (index, "text", 0), choice["text"]
    # A provider that sends both repeats the whole answer so far in the message.
    said = choice["delta"] if isinstance(choice.get("delta"), dict) else choice.get("message")
    if isinstance(said, dict):
        yield from _said_pieces(said, index)


def _said_pieces(said: JSON, index: int) -> Iterator[tuple[Place, str]]:
    for key in ("content", "refusal"):
        yield from _texts(said.get(key), (index, key, 0))
    reasoning = next((said[key] for key in ("reasoning_content", "reasoning") if said.get(key)), None)
    yield from _texts(reasoning, (index, "reasoning", 0))
    if not isinstance(reasoning, str):
        yield from _texts(said.get("reasoning_details"), (index, "reasoning", 0))
    calls = said.get("tool_calls")
    for position, call in enumerate(calls if isinstance(calls, list) else ()):
        if isinstance(call, dict):
            yield from _call_pieces(call, index, _index(call, position))
    if isinstance(said.get("function_call"), dict):
        yield from _call_pieces({"function": said["function_call"]}, index, -1)
    audio = said.get("audio")
    if isinstance(audio, dict):
        yield from _texts(audio.get("transcript"), (index, "transcript", 0))
        yield from _texts(audio.get("data"), (index, "sound", 0))


def _call_pieces(call: JSON, choice: int, index: int) -> Iterator[tuple[Place, str]]:
    place = (choice, "call", index)
    yield place, ""
    for part in (call.get("function"), call.get("custom")):
        if isinstance(part, dict):
            yield from _texts(part.get("name"), (choice, "name", index))
            yield from _texts(part.get("arguments"), place)
            yield from _texts(part.get("input"), place)


def _item_pieces(item: JSON, index: int) -> Iterator[tuple[Place, str]]:
    """One output item of the responses form."""
    for key in ("content", "summary"):
        yield from _texts(item.get(key), (0, key, index))
    for key in ("name", "arguments", "input"):
        yield from _texts(item.get(key), (0, key, index))


def _texts(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """A text, or a list of parts that hold one."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, list):
        for part in value:
            for key in ("text", "summary", "refusal") if isinstance(part, dict) else ():
                if isinstance(part.get(key), str):
                    yield place, part[key]


def _index(holder: JSON, position: int, key: str = "index") -> int:
    index = holder.get(key)
    return index if isinstance(index, int) else position
