"""OpenAI, and every server that speaks its format: presets, local servers, gateways."""

from adapters.openai_lane.lane import OpenAILane


class OpenAIAdapter(OpenAILane):
    """Chat, completions, embeddings and responses, as received."""
