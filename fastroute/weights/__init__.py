"""Weights that this machine runs itself: a GGUF file by llama.cpp, a causal model of Hugging Face by transformers.

The weights live in a process of their own that speaks OpenAI's dialect on loopback, so a gateway asks them as it asks
any provider. `host` opens one for a program, `Keeper` one that all workers of a state directory share. Nothing here needs
the libraries that do the work until that process starts; `pip install 'fastroute[gguf]'` or `'fastroute[weights]'`.
"""

from fastroute.weights.keeper import Address, Keeper, Keepers, Unloadable, host, spec_of
from fastroute.weights.source import Source, Spec, WeightsError

__all__ = [
    "Address",
    "Keeper",
    "Keepers",
    "Source",
    "Spec",
    "Unloadable",
    "WeightsError",
    "host",
    "spec_of",
]
