"""Starts the gateway with some of its constants changed: `launcher.py '{"fastroute.web.reading.FIRST_BYTE_S": 0.3}' serve ...`

Workers are forked from this process and inherit what is set here. It is how a test meets a deadline of thirty seconds
without waiting for it.
"""

import importlib
import json
import sys

if __name__ == "__main__":
    for name, value in json.loads(sys.argv.pop(1)).items():
        module, _, constant = name.rpartition(".")
        loaded = importlib.import_module(module)
        assert hasattr(loaded, constant), name
        setattr(loaded, constant, value)
    from fastroute.cli import main

    main()
