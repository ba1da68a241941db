"""Other people's clients against `fastroute serve --demo`: each in an environment of its own, with what it installs.

`make clients` runs all of them; names as arguments choose some. The table at the end says what was installed and what
came of it; any failure is the exit code. It needs a package index and is no part of `make test`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "clients"
INSTALL_S = 300
RUN_S = 120

# script: what is installed for it; the first is the client itself.
PYTHON = {
    "client_mistralai.py": ("mistralai",),
    "client_google_genai.py": ("google-genai",),
    "client_langchain_openai.py": ("langchain-openai",),
    "client_pydantic_ai.py": ("pydantic-ai-slim[openai]",),
    "client_llm.py": ("llm",),
}
NODE = {
    "client_openai.mjs": ("openai",),
    "client_anthropic.mjs": ("@anthropic-ai/sdk",),
    "client_google_genai.mjs": ("@google/genai",),
    "client_ai.mjs": ("ai", "@ai-sdk/openai"),
}


def main(wanted: list[str]) -> int:
    rows = []
    with gateway() as url:
        for script, packages in (PYTHON | NODE).items():
            if wanted and not any(word in script for word in wanted):
                continue
            rows.append((script, *attempt(script, packages, url)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    return 0 if all(row[2].startswith(("passed", "no ")) for row in rows) else 1


def attempt(script: str, packages: tuple[str, ...], url: str) -> tuple[str, str]:
    """(versions, outcome) of one client."""
    say(f"--- {script}")
    started = time.monotonic()
    try:
        if script.endswith(".py"):
            command, versions = python_environment(packages)
            folder = BUILD
        elif shutil.which("npm") is None:
            return "-", "no Node here"
        else:
            command, versions, folder = node_environment(script, packages)
        # Its own home: some clients keep logs and look for keys there.
        with tempfile.TemporaryDirectory() as home:
            subprocess.run(
                [*command, str(HERE / script) if script.endswith(".py") else script],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "HOME": home, "FASTROUTE_URL": url},
                timeout=RUN_S,
                check=True,
            )
    except subprocess.TimeoutExpired as error:
        return "?", f"FAILED after {error.timeout} s"
    except subprocess.CalledProcessError as error:
        return "?", f"FAILED with {error.returncode}"
    return versions, f"passed in {time.monotonic() - started:.1f} s"


def python_environment(packages: tuple[str, ...]) -> tuple[list[str], str]:
    names = [re.sub(r"\[.*", "", package) for package in packages]
    folder = BUILD / names[0]
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--upgrade", *packages], timeout=INSTALL_S, check=True)
    asked = f"from importlib.metadata import version; print(*(version(name) for name in {names!r}))"
    told = subprocess.run([python, "-c", asked], capture_output=True, text=True, timeout=30, check=True)
    return [str(python)], " ".join(f"{name} {v}" for name, v in zip(names, told.stdout.split(), strict=True))


def node_environment(script: str, packages: tuple[str, ...]) -> tuple[list[str], str, Path]:
    """npm takes an older major where Node is too old, without a word: what it took is printed."""
    folder = BUILD / f"node-{packages[0].replace('/', '-').lstrip('@')}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    shutil.copy(HERE / script, folder / script)
    quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--silent"]
    subprocess.run(["npm", "install", *quiet, *packages], cwd=folder, timeout=INSTALL_S, check=True)
    versions = [
        json.loads((folder / "node_modules" / name / "package.json").read_text())["version"] for name in packages
    ]
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    told = " ".join(f"{name} {version}" for name, version in zip(packages, versions, strict=True))
    return ["node"], f"{told} (Node {node})", folder


@contextmanager
def gateway() -> Iterator[str]:
    """A demo gateway on a free port."""
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "fastroute", "serve", "--demo", "--port", "0", "--workers", "1"]
        process = subprocess.Popen(
            [*command, "--state-dir", state],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )
        assert process.stderr is not None
        with process:
            try:
                for line in process.stderr:
                    found = re.search(r"listening on (http://\S+:[1-9]\d*)", line)
                    if found:
                        break
                else:
                    sys.exit("the gateway did not start")
                threading.Thread(target=lambda log: [None for _ in log], args=(process.stderr,), daemon=True).start()
                _await(found[1])
                yield found[1]
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


def _await(url: str) -> None:
    patience = time.monotonic() + 15
    while True:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):  # noqa: S310 - the address is our own
                return
        except OSError:
            if time.monotonic() > patience:
                sys.exit("no worker of the gateway ever answered")
            time.sleep(0.05)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
