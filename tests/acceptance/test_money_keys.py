"""Who is let in and what each may see: keys and their ends, twice-told names, the admin's plane, and what is stolen.

S1, S5, S6, S8, S26 and S43 of the security checklist, as a stranger or a neighbour would try them.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from money_desk_kit import ADMIN, CONFIG, House, Key, at_once, chat_body, no_more_asked, raw, until

pytestmark = pytest.mark.usefixtures("clean")

CHAT = "/v1/chat/completions"


# --- keys -----------------------------------------------------------------------------------------------------------


def test_s1_a_key_is_known_by_its_looks_and_shown_once(house: House) -> None:
    made = house.admin("POST", "/keys", json={"name": "looks"}).json()
    assert re.fullmatch(r"fr_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", made["key"])
    shown = house.admin("GET", f"/keys/{made['id']}")
    assert made["key"] not in shown.text
    assert shown.json()["hint"] == f"{made['key'][:16]}_...{made['key'][-4:]}"
    assert made["key"] not in house.admin("GET", "/keys").text
    assert {**shown.json(), "key": made["key"]} == made


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "x-goog-api-key", "query"])
def test_c12_a_key_is_taken_wherever_its_client_puts_it(house: House, header: str) -> None:
    token = house.key().token
    headers = {} if header == "query" else {header: f"Bearer {token}" if header == "authorization" else token}
    url = CHAT + (f"?key={token}" if header == "query" else "")
    assert house.fetch("POST", url, content=chat_body("cheap"), headers=headers).status_code == 200


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda token: token[:-1] + ("a" if token[-1] != "a" else "b"),
        lambda token: token[:20],
        lambda token: token + "x",
        lambda token: token.upper(),
        lambda token: "fr_live_",
        lambda token: "sk-1234",
        lambda token: "x" * 5000,
    ],
)
def test_a_key_that_is_not_one_is_401_in_the_callers_envelope(house: House, lab: Any, spoiled: Any) -> None:
    token = house.key().token
    with no_more_asked(lab):
        told = house.ask(Key("", "", spoiled(token)), "cheap")
    assert told.status == 401
    assert told.error["type"] == "authentication_error"
    assert told.error["code"] == "invalid_api_key"
    assert token not in told.body.decode()


def test_without_a_key_nobody_is_let_in(house: House, lab: Any) -> None:
    with no_more_asked(lab):
        told = house.ask(None, "cheap")
    assert told.status == 401
    assert told.error["code"] == "missing_api_key"
    anthropic = house.ask(None, "claude", path="/v1/messages", max_tokens=5)
    assert anthropic.status == 401
    assert anthropic.json["type"] == "error"
    assert anthropic.json["error"]["type"] == "authentication_error"


def test_a_revoked_key_is_401_on_every_worker_within_a_second(house: House, lab: Any) -> None:
    key = house.key()
    assert [house.fresh(key, "cheap").status_code for _ in range(8)] == [200] * 8
    assert house.admin("DELETE", f"/keys/{key.id}").json()["state"] == "revoked"
    with contextlib.suppress(TimeoutError):
        until(lambda: house.fresh(key, "cheap").status_code == 401, 1)
    with no_more_asked(lab):
        until(lambda: {house.fresh(key, "cheap").status_code for _ in range(8)} == {401}, 1)
    assert house.fetch("GET", "/v1/usage", key.token).status_code == 401


def test_a_dead_key_reads_the_same_words_however_it_died(house: House) -> None:
    revoked, expired = house.key(), house.key(expires="1s")
    house.admin("DELETE", f"/keys/{revoked.id}")
    until(lambda: house.ask(expired, "cheap").status == 401, 4)
    until(lambda: house.ask(revoked, "cheap").status == 401, 4)
    never = Key("", "", revoked.token[:-8] + "AAAAAAAA")
    told = [house.ask(key, "cheap") for key in (revoked, expired, never)]
    assert len({one.body for one in told}) == 1
    assert [one.status for one in told] == [401] * 3


def test_a_key_below_a_revoked_one_is_dead_too(house: House) -> None:
    parent = house.key()
    child = house.key(parent=parent.id)
    assert house.ask(child, "cheap").status == 200
    house.admin("DELETE", f"/keys/{parent.id}")
    until(lambda: house.ask(child, "cheap").status == 401, 3)


def test_a_rotated_key_is_good_for_its_grace(house: House) -> None:
    key = house.key()
    made = house.admin("POST", f"/keys/{key.id}/rotate", json={"grace_s": 2}).json()
    new = Key(made["id"], made["name"], made["key"])
    assert (new.id, new.token != key.token) == (key.id, True)
    assert {house.fresh(key, "cheap").status_code for _ in range(4)} == {200}
    assert {house.fresh(new, "cheap").status_code for _ in range(4)} == {200}
    until(lambda: {house.fresh(key, "cheap").status_code for _ in range(4)} == {401}, 5)
    assert {house.fresh(new, "cheap").status_code for _ in range(4)} == {200}


def test_a_key_rotated_without_a_grace_is_over_at_once(house: House) -> None:
    key = house.key()
    assert house.ask(key, "cheap").status == 200
    made = house.admin("POST", f"/keys/{key.id}/rotate").json()
    until(lambda: {house.fresh(key, "cheap").status_code for _ in range(4)} == {401}, 1)
    assert house.ask(Key("", "", made["key"]), "cheap").status == 200
    for wrong in ({"grace_s": -1}, {"grace_s": 8 * 86_400}, {"grace_s": "1h"}, {"grace": 1}):
        assert house.admin("POST", f"/keys/{key.id}/rotate", json=wrong).status_code == 400


def test_a_new_limit_holds_at_once_on_every_worker(house: House) -> None:
    key = house.key()
    assert [house.fresh(key, "cheap").status_code for _ in range(8)] == [200] * 8
    assert house.admin("PATCH", f"/keys/{key.id}", json={"budget_usd": 0}).status_code == 200
    until(lambda: {house.fresh(key, "cheap").status_code for _ in range(8)} == {402}, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"name": ""},
        {"name": "x" * 201},
        {"name": "a", "rpm": -1},
        {"name": "a", "rpm": 1.5},
        {"name": "a", "window": "weekly"},
        {"name": "a", "timezone": "Mars/Olympus"},
        {"name": "a", "kind": "grant"},
        {"name": "a", "parent": "nobody"},
        {"name": "a", "models": "cheap"},
        {"name": "a", "expires": "soon"},
        {"name": "a", "expires": "2001-01-01T00:00:00Z"},
        {"name": "a", "metadata": {"a": 1}},
        {"name": "a", "rpm": 2**70},
        {"name": "a", "colour": "red"},
    ],
)
def test_a_key_that_cannot_be_names_what_is_wrong(house: House, wrong: Any) -> None:
    told = house.admin("POST", "/keys", json=wrong)
    assert told.status_code in (400, 404), told.text
    assert set(told.json()["error"]) == {"message", "type", "param", "code"}
    assert house.admin("GET", "/keys/a").status_code == 404


# --- S5, S6 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "host"])
@pytest.mark.parametrize("path", [CHAT, "/v1/route", "/v1/usage", "/admin/keys", "/v1/models"])
def test_s5_who_says_twice_who_it_is_is_refused(house: House, lab: Any, name: str, path: str) -> None:
    token = house.key().token
    value = {"authorization": f"Bearer {token}", "x-api-key": token, "host": "127.0.0.1"}[name]
    lines = [(name, value), (name, value)]
    if name != "authorization":
        lines.append(("authorization", f"Bearer {token}"))
    method = "POST" if path in (CHAT, "/v1/route") else "GET"
    with no_more_asked(lab):
        status = raw(house, method, path, [*(() if name == "host" else [("host", "t")]), *lines], chat_body("cheap"))
    assert status == 400


def test_s6_wrong_keys_of_one_address_are_counted_and_right_ones_pass(serve: Any, lab: Any) -> None:
    house = House(serve(CONFIG.format(lab=lab.url), {"FASTROUTE_ADMIN_KEY": ADMIN}, workers=2))
    key = house.key()
    wrong = Key("", "", key.token[:-8] + "AAAAAAAA")
    told = [house.fresh(wrong, "cheap") for _ in range(70)]
    statuses = [one.status_code for one in told]
    assert statuses == [401] * 60 + [429] * 10
    assert told[-1].json()["error"]["type"] == "rate_limit_error"
    assert int(told[-1].headers["retry-after"]) >= 1
    assert len({one.content for one in told[:60]}) == 1
    assert house.fresh(key, "cheap").status_code == 200
    assert house.fetch("GET", "/v1/usage", wrong.token).status_code == 429
    assert house.fetch("GET", "/v1/usage", key.token).status_code == 200
    agents = house.fetch("POST", "/api/v1/agents/provider-key", json={"ic_token": dead_agent(house)})
    assert agents.status_code == 429


def test_s6_wrong_admin_keys_are_counted_too_and_the_right_one_passes(serve: Any, lab: Any) -> None:
    """Until there are too many they find nothing there, as whoever brings none does for ever."""
    house = House(serve(CONFIG.format(lab=lab.url), {"FASTROUTE_ADMIN_KEY": ADMIN}, workers=2))
    assert {house.fetch("GET", "/admin/keys").status_code for _ in range(70)} == {404}
    statuses = [house.fetch("GET", "/admin/keys", f"adm_guess_{n}").status_code for n in range(70)]
    assert statuses == [404] * 60 + [429] * 10
    assert house.fetch("POST", "/admin/keys", "adm_guess", json={"name": "x"}).status_code == 429
    assert house.admin("GET", "/keys").json()["data"] == []
    key = house.key()
    assert house.fresh(key, "cheap").status_code == 200
    assert house.fetch("GET", "/v1/usage", "fr_live_no").status_code == 429, "one count for guesses of every kind"


def dead_agent(house: House) -> str:
    agent = house.agent()
    house.admin("DELETE", f"/keys/{agent.id}")
    return agent.token


# --- a house at work ------------------------------------------------------------------------------------------------


def test_s26_no_process_leaves_an_image_with_keys_in_it(house: House) -> None:
    main = house.gateway.process.pid
    children = [int(each) for each in Path(f"/proc/{main}/task/{main}/children").read_text().split()]
    assert children
    for pid in (main, *children):
        assert re.search(r"Max core file size +0 +0 ", Path(f"/proc/{pid}/limits").read_text())


def test_s43_the_state_is_its_owners_alone(house: House) -> None:
    for directory in (house.state_dir, *(each for each in house.state_dir.rglob("*") if each.is_dir())):
        assert directory.stat().st_mode & 0o077 == 0, directory
    for file in (each for each in house.state_dir.rglob("*") if each.is_file()):
        assert file.stat().st_mode & 0o077 == 0, file


# --- S8: three planes -----------------------------------------------------------------------------------------------


ADMINISTRATION = [
    ("GET", "/admin/keys"),
    ("POST", "/admin/keys"),
    ("GET", "/admin/keys/the first"),
    ("PATCH", "/admin/keys/the first"),
    ("DELETE", "/admin/keys/the first"),
    ("POST", "/admin/keys/the first/rotate"),
    ("GET", "/admin/grants/x"),
    ("DELETE", "/admin/grants/x"),
    ("GET", "/admin/decisions/x"),
    ("GET", "/admin/usage/the first"),
    ("GET", "/admin/overview"),
    ("GET", "/admin/receipts"),
    ("GET", "/admin/receipts/x"),
    ("GET", "/admin/receipts/x/corrections"),
    ("POST", "/admin/receipts/x/corrections"),
]


def test_s8_every_route_of_the_administration_is_in_the_table() -> None:
    from fastroute.web import admin

    served = {(method, route.path) for route in admin.routes() for method in (route.methods or ()) if method != "HEAD"}
    told = {(method, re.sub(r"/(the first|x)(?=/|$)", "/{id}", path)) for method, path in ADMINISTRATION}
    assert served == told


@pytest.mark.parametrize(("method", "path"), ADMINISTRATION)
def test_s8_nothing_is_administered_without_the_admin_key(house: House, method: str, path: str) -> None:
    user, agent, key = house.key(kind="user"), house.agent(), house.key()
    lease = house.fetch("POST", "/api/v1/budget/handshake", json={"ic_token": agent.token, "provider": "openai"})
    strangers = [None, "wrong", key.token, agent.token, lease.json()["ip_token"], user.id, ADMIN[:-1], ADMIN + "x"]
    # An address of its own, since wrong keys of one are counted.
    address = f"127.1.0.{1 + ADMINISTRATION.index((method, path))}"
    with httpx.Client(base_url=house.url, transport=httpx.HTTPTransport(local_address=address)) as http:
        for token in strangers:
            headers = {} if token is None else {"authorization": f"Bearer {token}"}
            assert http.request(method, path, headers=headers, json={}).status_code == 404, token
        query = http.request(method, f"{path}?key={ADMIN}", json={})
    assert query.status_code == 404, "the admin key never stands in a URL"
    assert "the first" not in query.text or "/the%20first" in query.text or "nothing is served" in query.text


def test_s8_the_admin_key_is_no_key_of_a_caller(house: House, lab: Any) -> None:
    with no_more_asked(lab):
        assert house.ask(Key("", "", ADMIN), "cheap").status == 401
    for path in ("/v1/usage", "/v1/receipts", "/v1/models", "/v1/receipts/x", "/v1/grants/x", "/v1/decisions/x"):
        assert house.fetch("GET", path, ADMIN).status_code == 401, path


def test_s8_without_an_admin_key_there_is_no_administration(serve: Any, lab: Any) -> None:
    gateway = serve(CONFIG.format(lab=lab.url))
    for token in ("None", "null", "x"):
        reply = gateway.http.get("/admin/keys", headers={"authorization": f"Bearer {token}"})
        assert reply.status_code == 404
    assert "FASTROUTE_ADMIN_KEY" in gateway.http.get("/admin/keys").text


def test_what_tells_nothing_of_anybody_needs_no_key(house: House) -> None:
    for path in ("/", "/healthz", "/readyz", "/health", "/metrics"):
        assert house.fetch("GET", path).status_code == 200
    assert house.fetch("GET", "/v1/models").status_code == 401


# --- S1: what is stolen opens nothing -------------------------------------------------------------------------------


def test_s1_a_stolen_database_knows_no_key_without_its_pepper(house: House, tmp_path: Path) -> None:
    from fastroute.ledger.tokens import digest

    key = house.key()
    with contextlib.closing(sqlite3.connect(f"file:{house.state_dir}/fastroute.db?mode=ro", uri=True)) as db:
        dump = "\n".join(db.iterdump())
    assert key.id in dump
    assert key.token not in dump
    secret = key.token.rpartition("_")[2]
    assert secret[:43] not in dump
    pepper = (house.state_dir / "secrets" / "pepper").read_bytes()
    assert digest(pepper, key.token.encode()).hex() in dump.lower()
    assert digest(b"\0" * 32, key.token.encode()).hex() not in dump.lower()


def test_the_first_key_of_many_made_at_once_is_one_of_them(house: House) -> None:
    """Two who want the same name at once are told apart."""
    told = at_once(6, lambda _: httpx.post(f"{house.url}/admin/keys", json={"name": "wanted"}, headers=BEARER))
    assert sorted(one.status_code for one in told) == [201] + [409] * 5


BEARER = {"authorization": f"Bearer {ADMIN}"}
