"""xAI: OpenAI's format, with reasoning counted apart and errors in prose.

What a stranger would get wrong: `completion_tokens` leaves the reasoning out while `total_tokens` includes it. The meter
always gets the raised number; the client gets it too when the endpoint is repaired (as by default), so that prompt and
completion make the total, and xAI's own bytes when it is not. A wrong key is answered with 400, which `adapters.problem`
knows. Source: https://docs.x.ai/docs/api-reference
"""

from adapters.openai_lane.lane import OpenAILane


class XAIAdapter(OpenAILane):
    """As OpenAI, with the quirks of kind `xai`."""
