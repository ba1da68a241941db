"""Answers kept to be told again: what a request is called here, what is kept of an answer, and the stores it is kept in.

`keys` names requests, `wishes` reads what a caller wants of the cache, `answers` are what is kept; `memory`, `service` and
`redis` are stores with one protocol, and `shared` stands before one that others share and that may be away.
"""

from fastroute.cache.answers import ANSWER_MAX, Answer, answer_of, sealed, unsealed
from fastroute.cache.keys import canonical, deterministic, name_of, root_of, secret_of
from fastroute.cache.memory import ENTRIES_MAX, Memory
from fastroute.cache.service import Service
from fastroute.cache.shared import Shared
from fastroute.cache.store import CacheAway, Store
from fastroute.cache.wishes import Wishes, wishes

__all__ = [
    "ANSWER_MAX",
    "ENTRIES_MAX",
    "Answer",
    "CacheAway",
    "Memory",
    "Service",
    "Shared",
    "Store",
    "Wishes",
    "answer_of",
    "canonical",
    "deterministic",
    "name_of",
    "root_of",
    "sealed",
    "secret_of",
    "unsealed",
    "wishes",
]
