"""GGUF weights by llama.cpp, through xllamacpp: its own server does all there is to do.

It speaks OpenAI's dialect with streams, stops, seeds, tools, JSON grammars and the template of the file, generates
`parallel` answers at a time, lets the others wait, and stops when a caller leaves. The one file that knows xllamacpp.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

from fastroute.weights.source import Running, Spec, WeightsError

# A kept connection keeps a thread, which costs no more than its stack; with the library's own three, callers would wait
# for connections that nobody uses.
_HTTP_THREADS: Final = 128
# Prompts that may come again are kept so far, in place of the library's eight gigabytes.
_PROMPT_CACHE_MIB: Final = 256
_ERRORS_ONLY: Final = 1  # what is logged at more than this may quote a prompt


def serve(spec: Spec, token: str, hub_token: str | None) -> Running:
    """Load the weights and answer on a port of loopback; `WeightsError` when they cannot be loaded."""
    llama: Any = import_module("xllamacpp")
    wanted = llama.CommonParams()
    wanted.model.path = spec.source.path
    wanted.model_alias = {spec.source.name}
    wanted.n_parallel = spec.parallel
    wanted.n_ctx = spec.context * spec.parallel
    for each in (wanted.cpuparams, wanted.cpuparams_batch):
        each.n_threads = spec.threads
    if spec.device == "cpu":
        wanted.n_gpu_layers = 0
        wanted.fit_params = False
    wanted.hostnames, wanted.port, wanted.api_keys = ["127.0.0.1"], 0, [token]
    wanted.n_threads_http = _HTTP_THREADS
    wanted.cache_ram_mib = _PROMPT_CACHE_MIB
    wanted.verbosity = _ERRORS_ONLY
    wanted.offline, wanted.ui, wanted.endpoint_slots, wanted.warmup = True, False, False, False
    try:
        server = llama.Server(wanted)
    except RuntimeError as error:
        raise WeightsError(f"llama.cpp cannot load {spec.source.name}; its log says why") from error
    port = urlsplit(server.listening_address).port
    assert port is not None
    _hush()
    return Running(port, server)


def _hush() -> None:
    """From here on it speaks of requests, quotes what they hold (a grammar it cannot read), and has a line for each."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for said in (1, 2):
        os.dup2(nowhere, said)
    os.close(nowhere)
