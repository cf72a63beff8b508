"""Our own HTTP/1.1 server: httptools reads what comes, one task answers a request, one write sends an answer.

It knows nothing of OpenAI's API or of keys; the constant answers to what is no HTTP are the only words of its own.
"""
