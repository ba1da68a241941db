"""Starts the gateway with some of its constants changed: `launcher.py '{"fastroute.supervisor.BACKOFF_MS": [50]}' serve ...`

Children are forked from this process and inherit what is set here. `journal_bytes` makes segments of another size, so
that a test can fill one.
"""

import importlib
import json
import sys

if __name__ == "__main__":
    constants = json.loads(sys.argv.pop(1))
    if size := constants.pop("journal_bytes", 0):
        constants["fastroute.ledger.teller.SEGMENT_BYTES"] = size
    for name, value in constants.items():
        module, _, constant = name.rpartition(".")
        loaded = importlib.import_module(module)
        assert hasattr(loaded, constant), name
        setattr(loaded, constant, value)
    from fastroute.cli import main

    main()
