"""A local agent: a small gateway whose only upstream is one machine's models, announced to a router that sends it work.

`process` is the whole of it; what answers is a `backend.Backend`, and whoever brings another kind writes one of those.
"""
