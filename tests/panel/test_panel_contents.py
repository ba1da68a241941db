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
