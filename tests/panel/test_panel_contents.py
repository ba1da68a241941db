"""Content at the desk: bytes by the receipt they belong to, until their time is over."""

DAY_MS = 86_400_000
RECEIPT = "rcpt_" + "a" * 26


def test_content_is_there_until_it_expires(panel):
    panel.ask("contents.keep", account=0, receipt=RECEIPT, body=b"\x01closed", days=2)
    shown = panel.ask("contents.show", receipt=RECEIPT)
    assert (shown["content"], shown["expires_ms"], shown["shadow"]) == (b"\x01closed", panel.now + 2 * DAY_MS, None)
    panel.restart()
    assert panel.ask("contents.kept", receipts=["rcpt_other", RECEIPT]) == [RECEIPT]
    panel.now += 2 * DAY_MS
    assert panel.ask("contents.kept", receipts=[RECEIPT]) == []
    assert panel.ask("contents.show", receipt=RECEIPT)["content"] is None


def test_what_has_no_bound_is_refused(panel):
    assert panel.refused("contents.keep", account=0, receipt=RECEIPT, body=bytes(1024 * 1024 + 1), days=1).status == 413
    assert panel.refused("contents.keep", account=0, receipt=RECEIPT, body=b"", days=0).status == 400
    assert panel.refused("contents.kept", receipts=["x"] * 1001).status == 400


def test_a_comparison_stands_beside_the_receipt_it_is_about(panel):
    panel.ask("contents.compare", account=0, receipt=RECEIPT, told={"shadow": {"latency_ms": 7}})
    assert panel.ask("contents.show", receipt=RECEIPT)["shadow"] == {"shadow": {"latency_ms": 7}}


def named(number):
    return "rcpt_" + f"{number:026d}"


def test_what_is_kept_is_listed_page_by_page_with_its_policy(panel):
    for number in range(5):
        panel.ask("contents.keep", account=0, receipt=named(number), body=b"closed", days=1)
        panel.now += 1
    first = panel.ask("contents.list", limit=3)
    rest = panel.ask("contents.list", limit=3, after=first[-1]["receipt"])
    assert [each["receipt"] for each in first + rest] == [named(number) for number in range(5)]
    assert [each["kept_ms"] for each in first] == [panel.now - 5, panel.now - 4, panel.now - 3]
    assert {each["policy"] for each in first} == {None}  # of these there are no receipts
    assert panel.refused("contents.list", limit=201).status == 400


def test_what_is_forgotten_is_gone_at_once_and_counted_once(kept):
    """The comparison beside it has no text, and stays."""
    for number in range(3):
        kept.ask("contents.keep", account=0, receipt=named(number), body=b"closed", days=1)
        kept.ask("contents.compare", account=0, receipt=named(number), told={"shadow": {}})
    assert kept.ask("contents.forget", receipts=[named(0), named(2), named(2), "rcpt_nobody"]) == 2
    assert kept.ask("contents.kept", receipts=[named(0), named(1), named(2)]) == [named(1)]
    shown = kept.ask("contents.show", receipt=named(0))
    assert (shown["content"], shown["shadow"]) == (None, {"shadow": {}})
    kept.restart()
    assert [each["receipt"] for each in kept.ask("contents.list")] == [named(1)]
    assert kept.ask("contents.forget", receipts=[named(0)]) == 0
    assert kept.refused("contents.forget", receipts=["x"] * 1001).status == 400
