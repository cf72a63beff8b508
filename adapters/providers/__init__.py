"""One file per wire format; nothing else lives here, and none of them imports another."""
