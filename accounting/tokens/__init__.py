"""Token counts without a network: exact for OpenAI's models, at or above for all others.

Importing this costs nothing: the ranks (some 70 MB while they load) are read when a text is first counted.
"""
