"""Amazon Bedrock's Converse: OpenAI's chat to it, and its answers, streams and errors back."""
