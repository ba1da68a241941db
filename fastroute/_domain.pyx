# cython: language_level=3, auto_pickle=False
"""Where the fields of the domain's structs lie, found once. `_domain.pxd` names those that compiled code reads."""

from fastroute.domain import Attempt, Entry, ModelRef, Settlement, Tariff, Usage

from fastroute._fields cimport lay

USAGE, SETTLEMENT, ATTEMPT, ENTRY, REF, TARIFF = Usage, Settlement, Attempt, Entry, ModelRef, Tariff

# In the order in which the structs of `_domain.pxd` have them.
lay(<Py_ssize_t *>&of_usage, Usage, ("input", "output", "cache_read", "cache_write", "reasoning"))
lay(<Py_ssize_t *>&of_settlement, Settlement, ("basis", "picodollars", "microdollars", "usage", "tariff"))
lay(<Py_ssize_t *>&of_tariff, Tariff, ("input", "output", "cache_read", "cache_write", "source"))
lay(<Py_ssize_t *>&of_attempt, Attempt, ("lane", "model", "outcome", "settlement"))
lay(<Py_ssize_t *>&of_entry, Entry, ("id", "ref", "price"))
lay(<Py_ssize_t *>&of_ref, ModelRef, ("model",))
