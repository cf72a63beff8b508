"""Claude's signed thoughts on their way out to a client and back.

They leave as `reasoning_content` (the text) and `reasoning_details` (with the signature), a form that several clients
echo; both our details and Claude's own blocks are taken back. For clients that echo nothing they are remembered by the
id of the tool call that they led to. A thought without its signature is worth nothing to Claude and is left out.
Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
"""

from collections.abc import Mapping, Sequence

from adapters.base import JSON
from adapters.conversation import Reasoning, ToolCall, ToolResult, Turn
from adapters.memory import Memory

FORMAT = "anthropic-claude-v1"


def detail_of(block: JSON, index: int) -> JSON | None:
    """Return a thinking block as a detail with its place among them; None if it is not signed."""
    if block.get("type") == "redacted_thinking" and isinstance(block.get("data"), str):
        return {"index": index, "type": "reasoning.encrypted", "data": block["data"], "format": FORMAT}
    signature = block.get("signature")
    if block.get("type") == "thinking" and isinstance(signature, str) and signature:
        text = block.get("thinking")
        return {
            "index": index,
            "type": "reasoning.text",
            "text": text if isinstance(text, str) else "",
            "signature": signature,
            "format": FORMAT,
        }
    return None


def blocks_of(part: Reasoning) -> list[JSON]:
    """Return the thinking blocks in what a client echoed."""
    return [block for detail in part.details if (block := _block(detail)) is not None]


def remember(memory: Memory, tool_ids: Sequence[str], blocks: list[JSON]) -> None:
    """Keep the thoughts that led to tool calls."""
    if blocks and tool_ids:
        memory.remember(tool_ids[0], blocks)


def recall(memory: Memory, turns: Sequence[Turn]) -> dict[int, list[JSON]]:
    """Return the remembered thoughts of the assistant turns that come without their own, by the turn's place."""
    found: dict[int, list[JSON]] = {}
    for index, turn in enumerate(turns):
        if turn.role != "assistant" or _signed(turn):
            continue
        for part in turn.parts:
            blocks = memory.recall(part.id) if isinstance(part, ToolCall) else None
            if blocks:
                found[index] = blocks
                break
    return found


def loop_lost(turns: Sequence[Turn], remembered: Mapping[int, list[JSON]]) -> bool:
    """Tell whether a tool loop is open at the end whose first turn has lost its thoughts."""
    first: int | None = None
    index = len(turns) - 1
    while index > 0 and turns[index].role == "user" and any(isinstance(p, ToolResult) for p in turns[index].parts):
        index -= 1
        while index > 0 and turns[index].role == "system":
            index -= 1
        if turns[index].role != "assistant":
            break
        first, index = index, index - 1
    return first is not None and first not in remembered and not _signed(turns[first])


def _signed(turn: Turn) -> bool:
    return any(isinstance(part, Reasoning) and blocks_of(part) for part in turn.parts)


def _block(detail: JSON) -> JSON | None:
    form = detail.get("format")
    if isinstance(form, str) and not form.startswith("anthropic"):
        return None  # another provider's thought
    kind, data, signature = detail.get("type"), detail.get("data"), detail.get("signature")
    if kind in ("redacted_thinking", "reasoning.encrypted") and isinstance(data, str) and data:
        return {"type": "redacted_thinking", "data": data}
    if kind in ("thinking", "reasoning.text") and isinstance(signature, str) and signature:
        text = detail.get("thinking", detail.get("text"))
        return {"type": "thinking", "thinking": text if isinstance(text, str) else "", "signature": signature}
    return None
