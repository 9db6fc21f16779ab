"""How a running mount is talked to: a socket outside of it, one JSON object a line."""
