"""Policies: YAML files that say under one name which models answer, in which order, how fast, how dear and for whom.

`load_policies` reads a directory of them behind those that are shipped; a `Policy` tells the rooms above what it wants.
"""

from fastroute.policies.loading import Policies, UnknownPolicy, load_policies
from fastroute.policies.policy import (
    RETRY_WORDS,
    STRUCTURE,
    Budgets,
    Capture,
    Objectives,
    Parameters,
    Policy,
    Routing,
    Shadow,
    Strategy,
)
from fastroute.policies.reading import PolicyError, read_policy
from fastroute.policies.writing import digest, to_yaml

__all__ = [
    "RETRY_WORDS",
    "STRUCTURE",
    "Budgets",
    "Capture",
    "Objectives",
    "Parameters",
    "Policies",
    "Policy",
    "PolicyError",
    "Routing",
    "Shadow",
    "Strategy",
    "UnknownPolicy",
    "digest",
    "load_policies",
    "read_policy",
    "to_yaml",
]
