"""The upstreams room: the dialects providers speak, and the one door to the HTTP client."""
