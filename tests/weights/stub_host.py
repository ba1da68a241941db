"""A process of weights whose engine is a play: the real place, key, server and life, without the libraries.

What would be weights is a file with a line of JSON: how long they load, why they cannot, whether the process dies of it.
The answer to a prompt is its own words, one after another, each after a pause of `pace_s`.
"""

import json
import os
import signal
import sys
import time
import types
from pathlib import Path

from fastroute.weights import child, source
from fastroute.weights.asked import Done
from fastroute.weights.serving import Server
from fastroute.weights.source import Running, WeightsError


class Echo:
    def __init__(self, name: str, pace_s: float) -> None:
        self.name, self.pace_s = name, pace_s

    def run(self, wanted, hear):
        text = wanted.messages[-1].content if wanted.messages else wanted.prompt
        words = text.split(" ")
        said = words[: wanted.max_tokens]
        for place, word in enumerate(said):
            time.sleep(self.pace_s)
            hear(word if place == 0 else f" {word}")
        return Done("stop" if said == words else "length", len(words), len(said))


def serve(spec, token, hub_token):
    play = json.loads(Path(spec.source.path).read_text())
    time.sleep(play.get("load_s", 0))
    if play.get("dies"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if play.get("refuses"):
        raise WeightsError(play["refuses"])
    server = Server(Echo(spec.source.name, play.get("pace_s", 0)), token)
    server.start()
    return Running(server.port, server)


if __name__ == "__main__":
    source.NEEDED["gguf"] = ((), "gguf")
    engine = types.ModuleType("fastroute.weights.gguf")
    engine.serve = serve
    sys.modules["fastroute.weights.gguf"] = engine
    sys.exit(child.main(sys.argv[1:]))
