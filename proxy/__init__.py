"""The HTTP side: listen, authenticate, admit, route, relay; configuration, command line, ops listener."""
