"""The provider that Bursar brings along for its demo and tests; it speaks OpenAI's format over a socket like any other."""

from adapters.openai_lane.lane import OpenAILane


class FakeAdapter(OpenAILane):
    """OpenAI's format."""
