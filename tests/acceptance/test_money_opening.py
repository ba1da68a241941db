"""How a house opens: to everybody until its first key, and to nobody behind secrets that are guessed, spoiled or missing."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from money_desk_kit import ADMIN, CONFIG, House, Key, until

pytestmark = pytest.mark.usefixtures("clean")

ROOT = Path(__file__).parents[2]


# --- the open house -------------------------------------------------------------------------------------------------


def test_an_open_house_closes_with_its_first_key_on_every_worker(serve: Any, lab: Any) -> None:
    house = House(serve(CONFIG.format(lab=lab.url), {"FASTROUTE_ADMIN_KEY": ADMIN}, workers=2))
    assert {house.fresh(None, "cheap").status_code for _ in range(12)} == {200}
    assert house.ask(Key("", "", "sk-anything"), "cheap").status == 200
    key = house.key()
    until(lambda: {house.fresh(None, "cheap").status_code for _ in range(12)} == {401}, 1)
    assert {house.fresh(key, "cheap").status_code for _ in range(12)} == {200}


def test_a_house_whose_last_key_was_revoked_stays_closed(serve: Any, lab: Any) -> None:
    """To take a key away must not let everybody in."""
    house = House(serve(CONFIG.format(lab=lab.url), {"FASTROUTE_ADMIN_KEY": ADMIN}))
    key = house.key()
    house.admin("DELETE", f"/keys/{key.id}")
    until(lambda: house.fresh(key, "cheap").status_code == 401, 2)
    assert house.fresh(None, "cheap").status_code == 401


def test_a_shared_key_and_virtual_keys_stand_beside_each_other(serve: Any, lab: Any) -> None:
    shared = "shared_7Yq2Lm9Xv4Rk8Tz1Wb6N"
    env = {"FASTROUTE_ADMIN_KEY": ADMIN, "ROUTER_API_KEY": shared}
    house = House(serve(CONFIG.format(lab=lab.url), env))
    assert house.ask(Key("", "", shared), "cheap").status == 200
    assert house.ask(None, "cheap").status == 401
    assert house.ask(Key("", "", shared[:-1]), "cheap").status == 401
    key = house.key(budget_usd=0)
    assert house.ask(key, "cheap").status == 402
    assert house.ask(Key("", "", shared), "cheap").status == 200
    assert house.fetch("GET", "/v1/usage", shared).status_code == 401, "nobody's usage is shown to everybody"


# --- starting -------------------------------------------------------------------------------------------------------


def boot(place: Path, config: str, env: dict[str, str], *more: str, seconds: float = 6) -> tuple[int | None, str]:
    """Start a gateway: its exit code, None when it serves, and what it said. It is not left running."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "fastroute.yaml").write_text(config)
    command = [sys.executable, "-m", "fastroute", "serve", "--config", str(place / "fastroute.yaml"), "--port", "0"]
    command += ["--workers", "1", "--state-dir", str(place / "data"), *more]
    log = place / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env={"PATH": "/usr/bin:/bin", "HOME": str(place), **env}, stdout=out, stderr=out
        )
    with contextlib.suppress(TimeoutError):
        until(lambda: process.poll() is not None or _serves(log.read_text()), seconds)
    code = process.poll()
    if code is None:
        process.terminate()
        process.wait(15)
    return code, log.read_text()


def _serves(said: str) -> bool:
    found = re.search(r"listening on (http://\S+)", said)
    with contextlib.suppress(httpx.TransportError):
        return found is not None and httpx.get(f"{found[1]}/readyz").status_code == 200
    return False


def test_a_public_address_without_a_key_is_refused_with_what_would_mend_it(tmp_path: Path) -> None:
    code, said = boot(tmp_path, "{}", {}, "--host", "0.0.0.0")  # noqa: S104 - that is what is refused
    assert code == 78
    assert "fastroute keys create" in said
    assert "ROUTER_API_KEY" in said
    assert "Traceback" not in said


WEAK = ["dev-secret", "sk-1234", "changeme", "", "abc123", "x" * 31]


@pytest.mark.parametrize("name", ["ROUTER_API_KEY", "FASTROUTE_ADMIN_KEY"])
@pytest.mark.parametrize("secret", ["sk-1234", "x7" * 7])
def test_s7_a_public_address_is_not_served_behind_a_key_that_is_guessed(tmp_path: Path, name: str, secret: str) -> None:
    strong = {"ROUTER_API_KEY": "k" + "7" * 40, "FASTROUTE_ADMIN_KEY": "a" + "8" * 40}
    code, said = boot(tmp_path, "{}", {**strong, name: secret}, "--host", "0.0.0.0")  # noqa: S104 - the case
    assert code == 78, said
    assert {"ROUTER_API_KEY": "auth.router_key", "FASTROUTE_ADMIN_KEY": "auth.admin_key"}[name] in said
    assert "openssl rand" in said
    assert secret not in said
    code, said = boot(tmp_path, "{}", {**strong, name: secret})
    assert code is None, said  # on this machine alone it is the operator's own affair, and `doctor` tells of it


@pytest.mark.parametrize("secret", WEAK)
def test_s7_receipts_are_not_signed_with_a_weak_secret(tmp_path: Path, secret: str) -> None:
    code, said = boot(tmp_path, "{}", {"JWT_SECRET": secret})
    if secret == "":  # a variable set to nothing is one that is not set: a key of our own signs
        assert code is None
        assert list((tmp_path / "data" / "secrets").glob("receipts-*.key"))
        return
    assert code == 78, said
    assert "JWT_SECRET" in said
    assert secret not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("spoil", [b"", b"short", b"a" * 64])
def test_s7_a_spoiled_pepper_opens_no_books(tmp_path: Path, spoil: bytes) -> None:
    (tmp_path / "data" / "secrets").mkdir(parents=True)
    (tmp_path / "data" / "secrets" / "pepper").write_bytes(spoil)
    code, said = boot(tmp_path, "{}", {})
    assert code == 74, said
    assert "pepper" in said
    assert "Traceback" not in said
