"""The router with this gateway's own panel: two ends of one protocol, and the books agree with both."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from fastroute.config import load
from fastroute.reaching import reach

# Starts the gateway with constants of its own, which the processes that it forks inherit.
LAUNCHER = Path(__file__).parents[1] / "money" / "launcher.py"


class Books:
    """A gateway process that is the panel, and its desk."""

    def __init__(self, directory, upstream, **constants):
        file = directory / "fastroute.yaml"
        file.write_text(f'providers: {{openai: {{base_url: "{upstream.url}", api_key: sk-panel}}}}\n')
        state = directory / "state"
        self.config = load(file, {}, {"state_dir": str(state)})
        command = [sys.executable, str(LAUNCHER), json.dumps(constants)]
        command += ["serve", "--config", str(file), "--state-dir", str(state)]
        clean = {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_URL"))}
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--workers", "1"], stderr=subprocess.PIPE, text=True, env=clean, cwd=directory
        )
        found = None
        while found is None:
            found = re.search(r"listening on http://127.0.0.1:(\d+)", self.process.stderr.readline())
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._reading = threading.Thread(target=self.process.stderr.read, daemon=True)
        self._reading.start()

    @property
    def ready(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
            return False
        finally:
            connection.close()

    def agent(self, name, microdollars, provider="openai"):
        return self.ask(
            "keys.create", kind="agent", name=name, budget_microdollars=microdollars, metadata={"provider": provider}
        )["key"]

    def ask(self, operation, **given):
        with reach(self.config) as ask:
            return ask(operation, **given)

    def money(self, name):
        """(used, held, remaining) of an agent."""
        [money] = [each for each in self.ask("keys.show", id=name)["budgets"] if each["unit"] == "microdollar"]
        return money["used"], money["held"], money["remaining"]

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(15)
        self._reading.join(5)
        self.process.stderr.close()


@pytest.fixture
def books(tmp_path, upstream, kit):
    made = Books(tmp_path, upstream)
    kit.wait_until(lambda: made.ready, 15)
    yield made
    made.close()


def test_the_books_agree_with_the_router(books, kit, upstream):
    """R-A12 to R-A14 from the client's side: a lease, reports once each, a refresh, and the rest comes back."""
    with kit.Quick(api_key=books.agent("one", 100_000_000), server_url=books.url, strict=True) as router:
        assert (router.provider, router.budget) == ("openai", 10.0)
        assert books.money("one") == (0, 10_000_000, 90_000_000)
        for _ in range(3):
            assert kit.post(router, kit.chat()).status == 200
        assert router.spent_microdollars == 159
        kit.wait_until(lambda: books.money("one")[0] == 159)
        upstream.play = kit.whole(1000, 120_000)  # 1.20125 dollars of gpt-5.1: eight leave less than one of ten
        for _ in range(8):
            assert kit.post(router, kit.chat("gpt-5.1", max_tokens=128_000)).status == 200
        kit.wait_until(lambda: router.budget > 10.0)
        spent = router.spent_microdollars
        upstream.play = kit.whole()
        assert kit.post(router, kit.chat()).status == 200
    kit.wait_until(lambda: books.money("one") == (spent + 53, 0, 100_000_000 - spent - 53))

    small = books.agent("two", 5_000_000)
    with kit.Quick(api_key=small, server_url=books.url) as router:
        assert router.budget == 5.0, "less than a tranche is left, and all of it is leased"
        with kit.Quick(api_key=small, server_url=books.url) as second:
            answer = kit.post(second, kit.chat())
            assert (answer.status, answer.code) == (402, "budget_exceeded")
    with kit.Quick(api_key=small, server_url=books.url) as router:
        assert router.budget == 5.0, "what was returned is there again"


def test_an_agent_nobody_knows_or_without_a_provider_is_told_so(books, kit):
    unassigned = books.ask("keys.create", kind="agent", name="none", budget_microdollars=1, metadata={})["key"]
    other = books.agent("other", 1_000_000, provider="anthropic")
    for token, words in ((unassigned, "no provider is assigned"), (other, "no key"), ("ic_abc", "token")):
        with kit.Quick(api_key=token, server_url=books.url) as router:
            answer = kit.post(router, kit.chat())
            assert (answer.status, answer.code) == (503, "budget_unavailable")
            assert words in answer.json["error"]["message"], json.dumps(answer.json)


PROGRAM = """
    import sys
    from fastroute import LlmRouter

    router = LlmRouter(api_key=sys.argv[1], server_url=sys.argv[2], strict=True)
    print(router.port, flush=True)
    sys.stdin.read()
"""


def test_r_a15_what_a_killed_program_had_leased_is_there_again_when_the_lease_is_over(tmp_path, upstream, kit):
    """kill -9 with 7 dollars of 10 unspent: what was reported stays spent, and exactly the rest comes back."""
    books = Books(
        tmp_path, upstream, **{"fastroute.panel.leases.LEASE_MS": 5000, "fastroute.panel.leases.GRACE_MS": 100}
    )
    try:
        kit.wait_until(lambda: books.ready, 15)
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), books.agent("one", 100_000_000), books.url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
            port = int(program.stdout.readline())
            assert books.money("one") == (0, 10_000_000, 90_000_000)
            upstream.play = kit.whole(0, 300_000)  # 3 dollars of gpt-5.1
            router = type("Known", (), {"port": port, "api_key": command[-2]})
            assert kit.post(router, kit.chat("gpt-5.1", max_tokens=300_000)).status == 200
            kit.wait_until(lambda: books.money("one")[0] == 3_000_000)
            program.kill()
        assert books.money("one") == (3_000_000, 7_000_000, 90_000_000)
        kit.wait_until(lambda: books.money("one") == (3_000_000, 0, 97_000_000), 20)
    finally:
        books.close()
