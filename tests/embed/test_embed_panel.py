"""The router with a panel, which may be away, slow, hostile or out of money: what is asked of it, and what callers read."""

import asyncio
import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from fastroute.embed.engine import RouterUnfunded


def _nobody():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def _says(status, body):
    return lambda handler, _: handler.say(status, body)


def test_a_router_leases_spends_reports_and_returns(leased, panel, kit, upstream):
    """The whole life: key and lease at the start, a report for each call, the true spend at the end."""
    router = leased()
    assert (router.api_key, router.provider, router.budget) == ("ic_token", "openai", 10.0)
    assert panel.to("/budget/handshake") == [{"ic_token": "ic_token", "provider": "openai"}]
    assert {headers["authorization"] for _, headers, _ in panel.server.asked} == {"Bearer ic_token"}
    for _ in range(3):
        assert kit.post(router, kit.chat()).status == 200
    assert upstream.asked[-1][1]["authorization"] == "Bearer sk-panel"
    kit.wait_until(lambda: len(panel.to("/budget/report")) == 3)
    router.stop()
    reports = panel.to("/budget/report")
    assert len({report["request_id"] for report in reports}) == len(reports) == 3
    assert {(each["lease_id"], each["tokens"], each["cost_microdollars"]) for each in reports} == {("lease_1", 200, 53)}
    assert panel.to("/budget/return") == [{"lease_id": "lease_1", "spent_microdollars": 159}]


def test_the_lease_is_asked_for_the_provider_the_agent_was_given(leased, panel):
    """R-B13: an agent of Anthropic's leases for Anthropic."""
    panel.key = {"provider_key": "sk-ant-panel", "provider": "anthropic"}
    assert leased().provider == "anthropic"
    assert panel.to("/budget/handshake")[0]["provider"] == "anthropic"


def test_r_a2_a_dead_panel_is_named_and_found_again_without_a_restart(leased, kit, upstream):
    port = _nobody()
    router = leased(server_url=f"http://127.0.0.1:{port}")
    assert router.is_running
    assert router.provider == "unknown"
    assert router.budget is None
    answer = kit.post(router, kit.chat())
    assert (answer.status, answer.code) == (503, "budget_unavailable")
    assert f"127.0.0.1:{port}" in answer.json["error"]["message"]
    assert "$0.00" not in answer.json["error"]["message"]
    late = kit.FakePanel(upstream, port)
    kit.wait_until(lambda: router.budget == 10.0)
    assert router.provider == "openai"
    assert kit.post(router, kit.chat()).status == 200
    router.stop()
    late.server.close()


def test_r_a2_a_strict_router_raises_instead(leased, kit):
    with pytest.raises(RouterUnfunded, match="cannot be asked"):
        leased(server_url=f"http://127.0.0.1:{_nobody()}", strict=True)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/agents/provider-key", 403, {"error": "no provider is assigned", "code": "NO_PROVIDER_ASSIGNED"}),
        ("/agents/provider-key", 200, {"provider": "openai"}),
        ("/agents/provider-key", 200, ["nothing"]),
        ("/agents/provider-key", 200, {"provider": "venus", "provider_key": "k"}),
        ("/budget/handshake", 500, {"error": "broken"}),
        ("/budget/handshake", 200, {"budget_granted": -5, "lease_id": "l"}),
        ("/budget/handshake", 200, {"budget_granted": 1.5, "lease_id": "l"}),
        ("/budget/handshake", 200, {"budget_granted": True, "lease_id": "l"}),
        ("/budget/handshake", 200, {"budget_granted": 10**30, "lease_id": "l"}),
        ("/budget/handshake", 200, {"budget_granted": 5}),
        ("/budget/handshake", 200, {"budget_granted": 5, "lease_id": "l\r\nx: y"}),
        pytest.param("/budget/handshake", 200, b"[" * 100_000, id="nested without end"),
    ],
)
def test_r_a2_a_panel_that_talks_nonsense_is_no_budget(leased, panel, kit, upstream, path, status, body):
    """What cannot be read is told as such, and no nonsense becomes money."""
    panel.answers[path] = _says(status, body)
    answer = kit.post(leased(), kit.chat())
    assert (answer.status, answer.code) == (503, "budget_unavailable")
    assert not upstream.asked


def test_an_agent_whose_budget_is_spent_reads_402_and_not_503(leased, panel, kit):
    panel.answers["/budget/handshake"] = _says(403, {"error": "Budget limit exceeded", "code": "BUDGET_EXCEEDED"})
    answer = kit.post(leased(), kit.chat())
    assert (answer.status, answer.code) == (402, "budget_exceeded")
    assert answer.json["error"]["message"].startswith("Iron Cage budget limit exceeded.")


def test_a_panel_that_repeats_the_token_has_it_hidden(leased, panel, kit):
    panel.answers["/budget/handshake"] = _says(500, {"error": "who is ic_token?"})
    message = kit.post(leased(), kit.chat()).json["error"]["message"]
    assert "who is ***?" in message


def test_a_budget_of_the_programs_own_stands_in_the_place_of_a_lease(leased, panel, kit):
    router = leased(budget=0.05)
    assert router.budget == 0.05
    assert kit.post(router, kit.chat()).status == 200
    router.stop()
    assert not panel.to("/budget/handshake") + panel.to("/budget/return")


def test_a_providers_key_of_the_programs_own_is_not_asked_for(leased, panel, upstream):
    router = leased(provider_key="sk-own", provider_base_url=upstream.url)
    assert (router.provider, router.api_key, router.budget) == ("openai", "ic_token", 10.0)
    assert not panel.to("/agents/provider-key")


def test_a_low_lease_is_refreshed_in_the_background(leased, panel, kit, upstream):
    """At a tenth of the tranche; what was reported before belongs to the old lease, and the rest to the new."""
    panel.granted = 490
    router = leased()
    assert router.budget_microdollars == 490
    assert kit.post(router, kit.chat()).status == 200
    upstream.play = kit.whole(1000, 400)  # 390
    assert kit.post(router, kit.chat(max_tokens=400)).status == 200
    kit.wait_until(lambda: len(panel.to("/budget/refresh")) == 1)
    kit.wait_until(lambda: router.budget_microdollars == 443 + 490)
    [asked] = panel.to("/budget/refresh")
    assert (asked["current_lease_id"], asked["requested_budget"]) == ("lease_1", 10_000_000)
    upstream.play = kit.whole()
    assert kit.post(router, kit.chat()).status == 200
    router.stop()
    assert [each["lease_id"] for each in panel.to("/budget/report")] == ["lease_1", "lease_1", "lease_2"]
    assert panel.to("/budget/return") == [{"lease_id": "lease_2", "spent_microdollars": 53}]


def test_a_call_that_needs_more_than_is_left_waits_for_the_panel(leased, panel, kit):
    panel.granted = 400
    router = leased()
    panel.granted = 1000
    assert kit.post(router, kit.chat()).status == 200, "480 are held, and 400 were there"
    assert len(panel.to("/budget/refresh")) == 1


def test_a_refresh_that_is_denied_is_a_402_and_is_not_asked_for_at_every_call(leased, panel, kit, upstream):
    panel.granted = 400
    panel.answers["/budget/refresh"] = _says(
        200, {"status": "denied", "budget_remaining": 0, "reason": "Budget limit exceeded"}
    )
    router = leased()
    for _ in range(5):
        answer = kit.post(router, kit.chat())
        assert (answer.status, answer.code) == (402, "insufficient_budget")
    assert len(panel.to("/budget/refresh")) == 1
    assert not upstream.asked


def test_a_refresh_that_fails_blocks_what_the_lease_does_not_cover_and_says_why(leased, panel, kit):
    panel.granted = 500
    router = leased()
    panel.answers["/budget/refresh"] = _says(500, {"error": "broken"})
    assert kit.post(router, kit.chat()).status == 200
    answer = kit.post(router, kit.chat())
    assert (answer.status, answer.code) == (503, "budget_unavailable")
    panel.answers["/budget/refresh"] = lambda handler, _: handler.say(200, {"status": "approved", **panel.lease()})
    kit.wait_until(lambda: kit.post(router, kit.chat()).status == 200)


def test_r_a2_a_lease_that_is_told_twice_is_money_once(leased, panel, kit, upstream):
    """A refresh that repeats the lease there is: what is left of it is spent, no more, and the cause is named."""
    panel.granted = 500
    router = leased()
    panel.answers["/budget/refresh"] = _says(
        200, {"status": "approved", "lease_id": "lease_1", "budget_granted": 10_000_000, "budget_remaining": 1}
    )
    assert kit.post(router, kit.chat()).status == 200
    answer = kit.post(router, kit.chat())
    assert (answer.status, answer.code) == (503, "budget_unavailable")
    assert "gave lease 'lease_1' a second time" in answer.json["error"]["message"]
    assert router.budget_microdollars == 500
    assert len(upstream.to("/chat/completions")) == 1
    router.stop()
    assert panel.to("/budget/return") == [{"lease_id": "lease_1", "spent_microdollars": 53}]


def test_a_panel_that_goes_away_is_spent_on_and_told_afterwards(leased, panel, kit):
    """What is leased stays good; reports wait, and each is charged once however often it is sent."""
    router = leased()
    panel.answers["/budget/report"] = _says(503, {"error": "away"})
    for _ in range(4):
        assert kit.post(router, kit.chat()).status == 200
    kit.wait_until(lambda: len(panel.to("/budget/report")) >= 2)
    assert len({report["request_id"] for report in panel.to("/budget/report")}) == 1
    panel.server.asked.clear()
    panel.answers["/budget/report"] = _says(200, {"success": True})
    kit.wait_until(lambda: len(panel.to("/budget/report")) >= 4)
    router.stop()
    assert len({report["request_id"] for report in panel.to("/budget/report")}) == 4
    assert panel.to("/budget/return") == [{"lease_id": "lease_1", "spent_microdollars": 212}]


def test_a_lease_that_was_revoked_is_leased_anew(leased, panel, kit):
    router = leased()
    told = []

    def report(handler, body):
        told.append(body["lease_id"])
        if body["lease_id"] == "lease_1":
            handler.say(403, {"error": "Lease has been revoked", "code": "LEASE_REFUSED"})
        else:
            handler.say(200, {"success": True})

    panel.answers["/budget/report"] = report
    assert kit.post(router, kit.chat()).status == 200
    kit.wait_until(lambda: panel.leases == 2)
    kit.wait_until(lambda: router.budget_microdollars == 10_000_053)
    assert kit.post(router, kit.chat()).status == 200
    kit.wait_until(lambda: told == ["lease_1", "lease_2"])


def test_a_lease_is_refreshed_before_it_expires(leased, panel, kit):
    panel.lifetime = (datetime.now(UTC) + timedelta(seconds=0.4)).isoformat()
    router = leased()
    panel.lifetime = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    kit.wait_until(lambda: len(panel.to("/budget/refresh")) == 1)
    kit.wait_until(lambda: panel.leases == 2)
    assert kit.post(router, kit.chat()).status == 200


def test_a_lease_that_is_over_is_not_spent(leased, panel, kit, upstream):
    panel.lifetime = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    router = leased()
    for path in ("/budget/refresh", "/budget/handshake"):
        panel.answers[path] = _says(500, {"error": "broken"})
    kit.wait_until(lambda: kit.post(router, kit.chat()).status == 503)
    upstream.asked.clear()
    assert kit.post(router, kit.chat()).code == "budget_unavailable"
    assert not upstream.asked


def test_the_providers_key_is_asked_for_again_and_may_be_another(leased, panel, kit, upstream):
    router = leased(cache_ttl_seconds=0.05)
    kit.post(router, kit.chat())
    panel.key = {"provider_key": "sk-rotated", "provider": "openai", "base_url": upstream.url}

    def rotated() -> bool:
        return (
            kit.post(router, kit.chat()).status == 200 and upstream.asked[-1][1]["authorization"] == "Bearer sk-rotated"
        )

    kit.wait_until(rotated)


def test_a_key_that_was_taken_away_is_not_used_on(leased, panel, kit):
    router = leased(cache_ttl_seconds=0.05)
    assert kit.post(router, kit.chat()).status == 200
    panel.answers["/agents/provider-key"] = _says(403, {"error": "no more", "code": "NO_PROVIDER_ASSIGNED"})
    kit.wait_until(lambda: kit.post(router, kit.chat()).status == 503)


def test_r_a15_the_return_carries_what_was_under_way_and_is_tried_again(leased, panel, kit, upstream):
    go, answer = threading.Event(), kit.whole()

    def play(handler, body):
        go.wait(5)
        answer(handler, body)

    upstream.play = play
    failed = []

    def give_back(handler, body):
        failed.append(body)
        handler.say(500 if len(failed) < 3 else 200, {"returned": 1})

    panel.answers["/budget/return"] = give_back
    router = leased()
    asked = ThreadPoolExecutor(1).submit(kit.post, router, kit.chat())
    kit.wait_until(lambda: bool(upstream.asked))
    stopping = ThreadPoolExecutor(1).submit(router.stop)
    kit.wait_until(lambda: not router.is_running)
    assert not failed
    go.set()
    stopping.result(5)
    assert asked.result().status == 200
    assert failed == [{"lease_id": "lease_1", "spent_microdollars": 53}] * 3


def test_a_panel_that_hangs_does_not_hold_the_end_for_long(leased, panel, kit):
    hung = threading.Event()
    panel.answers["/budget/return"] = lambda handler, _: hung.wait(10)

    class Hasty(kit.Quick):
        _pace = kit.Pace(ask_s=0.1, retries_s=(0.01,), stop_s=0.3)

    router = leased(kind=Hasty)
    stopping = ThreadPoolExecutor(1).submit(router.stop)
    stopping.result(3)
    hung.set()


# --- analytics ------------------------------------------------------------------------------------------------------


def test_r_a16_each_call_is_one_event(leased, panel, kit, upstream):
    """Three calls, three posts, over several cycles."""
    router = leased()
    for _ in range(3):
        kit.post(router, kit.chat())
    kit.wait_until(lambda: len(panel.to("/analytics/events")) == 3)
    router.stop()
    events = panel.to("/analytics/events")
    assert len({uuid.UUID(event["event_id"]) for event in events}) == len(events) == 3
    event = events[0]
    assert (event["event_type"], event["model"], event["provider"]) == (
        "llm_request_completed",
        "gpt-4o-mini",
        "openai",
    )
    assert (event["input_tokens"], event["output_tokens"], event["cost_micros"]) == (150, 50, 53)


def test_r_a16_a_call_that_failed_is_an_event_too_and_a_refused_one_is_none(leased, panel, kit, upstream):
    upstream.play = lambda handler, body: handler.say(500, {"error": {"message": "broken"}})
    router = leased()
    kit.post(router, kit.chat())
    kit.post(router, kit.chat("claude-x"))
    kit.wait_until(lambda: len(panel.to("/analytics/events")) == 1)
    router.stop()
    [event] = panel.to("/analytics/events")
    assert (event["event_type"], event["error_code"]) == ("llm_request_failed", "5xx")


@pytest.mark.parametrize(("first", "posts"), [(500, 2), (429, 2), (400, 1)])
def test_r_a16_an_event_is_sent_again_after_a_fault_and_dropped_after_a_refusal(leased, panel, kit, first, posts):
    answered = []

    def take(handler, body):
        answered.append(body["event_id"])
        handler.say(first if len(answered) == 1 else 202, {})

    panel.answers["/analytics/events"] = take
    router = leased()
    kit.post(router, kit.chat())
    kit.wait_until(lambda: len(answered) == posts)
    router.stop()
    assert len(answered) == posts
    assert len(set(answered)) == 1


def test_r_a16_ten_thousand_events_are_kept_and_the_rest_is_counted():
    asyncio.run(_ten_thousand_and_more())


async def _ten_thousand_and_more():
    from fastroute.embed.analytics import Events
    from fastroute.embed.panel import PanelError

    class Away:
        async def ask(self, path, body):
            raise PanelError("away")

    events = Events(Away(), 30.0)
    for number in range(20_000):
        events.add({"event_id": str(number)})
    assert (len(events), events.dropped) == (10_000, 10_000)
    assert not await events.sync()
    assert len(events) == 10_000
