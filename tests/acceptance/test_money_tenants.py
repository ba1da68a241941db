"""What a tenant sees of its neighbour and of the administration: nothing, by any id, list, odd path, host or header.

S10 and S12 of the security checklist, as a neighbour would try them.
"""

from __future__ import annotations

from typing import Any

import pytest
from money_desk_kit import House, Key, no_more_asked, raw, until

pytestmark = pytest.mark.usefixtures("clean")


# --- S10: two tenants -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tenants(house: House) -> tuple[Key, Key]:
    return house.key("tenant-a", budget_usd=5), house.key("tenant-b", budget_usd=5)


def test_s10_what_is_anothers_is_not_there(house: House, tenants: tuple[Key, Key]) -> None:
    """Receipts, requests, grants and decisions, by every id that one tenant could know of the other."""
    mine, other = tenants
    told = house.ask(other, "cheap", max_tokens=5)
    step = {"task_class": "x", "budget_ceiling_microdollars": 9000, "latency_tolerance_ms": 30_000}
    reply = house.fetch("POST", "/v1/route", other.token, json={**step, "expected_tokens": {"in": 9, "out": 9}})
    assert reply.status_code == 200, reply.text
    placed = reply.json()
    receipt = told.headers["x-router-receipt-id"]
    until(lambda: house.fetch("GET", f"/v1/receipts/{receipt}", other.token).status_code == 200)
    ids = [receipt, told.headers["x-router-request-id"], told.headers["x-router-decision-id"], placed["decision_id"]]
    ids += [placed["grant"]["id"], other.id, other.name, "1", "2"]
    for name in ids:
        for kind in ("receipts", "grants", "decisions"):
            reply = house.fetch("GET", f"/v1/{kind}/{name}", mine.token)
            assert reply.status_code == 404, (kind, name)
            unknown = house.fetch("GET", f"/v1/{kind}/nothing", mine.token)
            assert reply.text.replace(name, "") == unknown.text.replace("nothing", ""), "nobody learns that it exists"
        assert house.fetch("DELETE", f"/v1/grants/{name}", mine.token).status_code == 404
    grant = house.fetch("GET", f"/v1/grants/{placed['grant']['id']}", other.token)
    assert grant.json()["state"] == "live"
    assert house.fetch("GET", f"/v1/decisions/{placed['decision_id']}", other.token).status_code == 200


def test_s10_lists_have_ones_own_alone(house: House, tenants: tuple[Key, Key]) -> None:
    mine, other = tenants
    receipts = {}
    for key in tenants:
        receipts[key] = house.ask(key, "cheap", max_tokens=5).headers["x-router-receipt-id"]
        until(lambda key=key: house.fetch("GET", f"/v1/receipts/{receipts[key]}", key.token).status_code == 200)
    listed = house.fetch("GET", "/v1/receipts?limit=1000", mine.token).json()["data"]
    assert receipts[mine] in {one["id"] for one in listed}
    assert {one["account"]["id"] if isinstance(one.get("account"), dict) else one["account"] for one in listed} == {
        mine.id
    }
    assert receipts[other] not in str(listed)
    for query in ("?account=1", f"?account={other.id}", f"?id={other.id}", f"?user={other.name}"):
        shown = house.fetch("GET", f"/v1/usage{query}", mine.token)
        assert shown.status_code != 200 or shown.json()["id"] == mine.id
        assert other.id not in house.fetch("GET", f"/v1/receipts{query}", mine.token).text
    assert {one["id"] for one in house.admin("GET", "/receipts?limit=1000").json()["data"]} >= set(receipts.values())


@pytest.mark.parametrize("query", ["?limit=0", "?limit=1001", "?limit=x", "?limit=-1", "?before=x", "?limit=%00"])
def test_a_page_that_cannot_be_is_refused(house: House, tenants: tuple[Key, Key], query: str) -> None:
    assert house.fetch("GET", f"/v1/receipts{query}", tenants[0].token).status_code == 400


def test_receipts_are_paged_backwards(house: House) -> None:
    key = house.key()
    made = [house.ask(key, "cheap").headers["x-router-receipt-id"] for _ in range(5)]
    until(lambda: len(house.fetch("GET", "/v1/receipts", key.token).json()["data"]) == 5)
    seen, query = [], "?limit=2"
    while True:
        page = house.fetch("GET", f"/v1/receipts{query}", key.token).json()
        if not page["data"]:
            break
        seen += [one["id"] for one in page["data"]]
        query = f"?limit=2&before={page['before']}"
    assert seen == made[::-1]


# --- S12: odd paths -------------------------------------------------------------------------------------------------


TRICKS = [
    f"{lead}{tail}"
    for tail in ("admin/keys", "admin/overview")
    for lead in (
        "//",
        "/./",
        "/v1/../",
        "/v1/%2e%2e/",
        "/v1/..%2f",
        "/%2e/",
        "/v1/models/../../",
        "/v1/models/..%2f..%2f",
        "/v1/models/%2e%2e/%2e%2e/",
        "/;/",
        "/v1;/../",
        "/%2f",
        "/\\",
        "/v1/..\\",
        "http://127.0.0.1/v1/../",
        "/metrics/../",
        "/healthz/..;/",
    )
]
TRICKS += [
    "/admin%2fkeys",
    "/admin%2Fkeys",
    "/%61dmin/keys",
    "/admin/%6beys",
    "/admin/keys%00",
    "/admin/keys%20",
    "/admin/keys/",
    "/admin/keys//",
    "/ADMIN/keys",
    "/Admin/Keys",
    "/admin/keys;x=1",
    "/admin/keys%3fx",
    "/admin/keys%23",
    "/admin\\keys",
    "/admin//keys",
    "/admin/./keys",
    "/admin/x/../keys",
    "/v1/admin/keys",
    "/openai/admin/keys",
    "/openai/../admin/keys",
    "/openai/v1/../../admin/keys",
    "/anthropic/v1/../../admin/keys",
    "/v1beta/models/x:generateContent/../../../admin/keys",
    "/api/v1/../../admin/keys",
    "/v1/usage/../../admin/keys",
    "/v1/receipts/..%2f..%2fadmin%2fkeys",
]


@pytest.mark.parametrize("path", TRICKS)
def test_s12_no_spelling_of_a_path_leads_a_caller_into_the_administration(
    house: House, lab: Any, tenants: tuple[Key, Key], path: str
) -> None:
    token = tenants[0].token
    with no_more_asked(lab):
        for method in ("GET", "POST"):
            status = raw(house, method, path, [("host", "t"), ("authorization", f"Bearer {token}")], b"{}")
            assert status in (0, 400, 404, 405), (method, status)


@pytest.mark.parametrize(
    "host", ["127.0.0.1/admin/keys?", "x#@y", "x y", "a/../admin", "x:80:80/", "", "admin@x", "[::1", "é"]
)
def test_s12_a_host_decides_nothing(house: House, tenants: tuple[Key, Key], host: str) -> None:
    token = tenants[0].token
    for path in ("/admin/keys", "/v1/usage"):
        status = raw(house, "GET", path, [("host", host), ("authorization", f"Bearer {token}")])
        assert status in (0, 400) or (status, path) in {(404, "/admin/keys"), (200, "/v1/usage")}, (path, status)


@pytest.mark.parametrize("path", ["/v1/%75sage", "//v1/usage", "/v1//usage", "/v1/./usage", "/v1/usage/", "/V1/usage"])
def test_s12_nor_does_one_lead_around_the_door(house: House, path: str) -> None:
    assert raw(house, "GET", path, [("host", "t")]) in (400, 401, 404)
    assert raw(house, "GET", path, [("host", "t"), ("x-original-url", "/admin/keys")]) in (400, 401, 404)


@pytest.mark.parametrize("name", ["x-original-url", "x-rewrite-url", "x-forwarded-prefix", "x-http-method-override"])
def test_s12_no_header_changes_what_is_asked_for(house: House, tenants: tuple[Key, Key], name: str) -> None:
    headers = {name: "/admin/keys" if "method" not in name else "DELETE"}
    reply = house.fetch("GET", "/v1/usage", tenants[0].token, headers=headers)
    assert reply.json()["id"] == tenants[0].id
