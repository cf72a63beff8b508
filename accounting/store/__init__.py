"""The store: a Redis or Valkey server, reached over one pipelined connection, or one that we start ourselves."""
