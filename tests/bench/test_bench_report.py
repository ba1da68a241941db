"""Made-up results, and what is said of them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import msgspec
import pytest

from fastroute.bench import _load, page, report, scale
from fastroute.bench.histogram import Histogram
from fastroute.bench.load import Told
from fastroute.bench.machine import Machine
from fastroute.bench.plots import Bar, bars, lines
from fastroute.bench.results import About, Phase, Results, Sample, sequence
from fastroute.bench.rounds import quick, steady

MACHINE = Machine(cpu="A <fast> one", cores=2, memory_gib=24.0, system="Linux 6", python="3.11.7", load=(0.1, 0.1, 0.1))
PHASES = quick(1.0)


def at(ms: float, count: int = 100) -> Histogram:
    return Histogram({_load.bucket_of(round(ms * 1e6)): count}, round(ms * 1e6))


def told(ms: float, *, answers: int = 1000, events: int = 0, **fields) -> Told:
    nothing = dict.fromkeys(
        ("comments", "changed", "bytes", "wrong_status", "last_status", "lost", "refused", "cut", "unanswered"), 0
    )
    return Told(
        **{
            **nothing,
            "answers": answers,
            "done": answers,
            "events": events,
            "window_ns": 10**9,
            "cpu_ns": {},
            "own_ns": 10**8,
            "latency": at(ms),
            "first": at(ms),
            "late": at(ms / 100),
            **fields,
        }
    )


def results(
    us: dict[str, float], *, other: float = 0.0, rounds: int = 3, phases: list[Phase] = PHASES, beside=0.0, **fields
) -> Results:
    """Subjects by what a request costs them; each is as late as it is dear."""
    samples = []
    for name, cost in {"direct": 0.0, **us}.items():
        for phase in phases:
            for number in range(rounds):
                jitter = 1 + 0.02 * (number - 1)
                tree = round(1000 * cost * 1000 * jitter)
                samples.append(
                    Sample(
                        subject=name,
                        phase=phase.name,
                        round=number,
                        told=told(1 + cost / 100, events=23_000 if phase.stream else 0, **fields),
                        worker_ns=tree or None,
                        tree_ns=tree + round(1e6 * beside) or None,
                        pss_kib=40_960,
                        other_cores=other,
                    )
                )
    abouts = [About(name=name, version="1", settings="<as it comes>") for name in ("direct", *us)]
    return Results(
        kind="compare",
        fastroute="0.1.0",
        date="2026-11-21T00:00:00+00:00",
        machine=MACHINE,
        shared_core=False,
        rounds=rounds,
        phases=phases,
        subjects=abouts,
        samples=samples,
        missing={"envoy": "is not installed"},
    )


USUAL = {"constant": 60.0, "fastroute": 100.0, "nginx": 30.0, "litellm": 15_000.0}


def test_aims_compare_with_who_was_there():
    _, rows = report.aims(results(USUAL))
    came = {row[0]: row[2:] for row in rows}
    assert came[f"{report.WORKER}, beside constant"] == ["1.67x", "yes"]
    assert came[f"{report.THROUGHPUT}, beside litellm"] == ["150x", "yes"]
    assert came[f"{report.THROUGHPUT}, beside nginx"] == ["0.30x", "yes"]
    assert came[f"{report.EVENTS}, beside nginx"] == ["0.30x", "no"]
    assert not any("envoy" in name for name in came)


def test_aims_are_told_of_both_servers():
    head, rows = report.aims(results({**USUAL, "fastroute, compiled": 80.0}))
    assert head == ["aim", "bound", "came", "holds", "compiled listener", "holds"]
    assert {row[0]: row[2:] for row in rows}[f"{report.THROUGHPUT}, beside nginx"] == [
        "0.30x",
        "yes",
        "0.38x",
        "yes",
    ]


def test_what_money_adds_is_told_at_a_steady_rate_and_of_two_budgets():
    ours = {"fastroute, data plane": 100.0, "fastroute, two budgets": 112.0, "fastroute, two budgets, compiled": 90.0}
    found = results(ours, phases=steady(5000, 1.0), beside=30.0)
    _, rows = report.aims(found)
    assert {row[0]: row[1:] for row in rows} == {
        report.MONEY: ["<= 25 us", "12.0 us", "yes", "-", "-"],
        report.BOOKS: ["<= 25 us", "30.0 us", "no", "30.0 us", "no"],
    }
    text = report.told(found)
    assert "requests/s  " not in text  # what nobody was measured in is no column
    assert re.search(r"beside it +- +30\.0 +30\.0 +30\.0", text)
    assert report.MONEY in page.comparison(found)


def test_added_is_compared_within_each_round():
    found = results({"fastroute": 100.0})
    assert found.added_ms("fastroute", "rate", 500).middle == pytest.approx(1.0, rel=0.02)
    assert found.added_ms("direct", "rate", 500).middle == 0


def test_a_report_names_machine_figures_aims_and_who_is_missing():
    text = report.told(results(USUAL))
    assert str(MACHINE) in text
    assert "envoy was not measured: is not installed" in text
    assert "NOISY" not in text
    assert re.search(r"CPU us/request, whole tree .*60\.0 \(58\.8\.\.61\.2\)", text)


def test_noise_is_said_at_the_head():
    noisy = results(USUAL, other=0.8)
    assert report.told(noisy).index("NOISY: other work took 0.80 cores") < report.told(noisy).index("requests/s  ")
    assert "too noisy" in page.comparison(noisy)


def test_failures_are_told_with_who_and_where():
    found = results({"fastroute": 100.0}, rounds=1, wrong_status=3, last_status=503)
    assert "fastroute, JSON, 0.5 KB, 32 connections: 3 status 503" in report.faults(found)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "yes"),
        ({"comments": 5}, "yes, and a comment"),
        ({"changed": 1000}, "no"),
        ({"changed": 2}, "6 of 3000 changed"),
    ],
)
def test_bytes_kept(fields, said):
    assert report.kept(results({"fastroute": 100.0}, **fields), "fastroute", "burst") == said


def test_markdown_has_as_many_cells_in_every_line():
    text = report.told(results(USUAL), markdown=True)
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert len(tables) == 2
    for each in tables:
        assert len({line.count("|") for line in each.strip().splitlines()}) == 1


def test_raw_results_can_be_read_again():
    found = results(USUAL)
    again = msgspec.json.decode(msgspec.json.encode(found), type=Results)
    assert report.told(again) == report.told(found)


class Balanced(HTMLParser):
    """Tags that open and close, and what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in {"src", "href", "xlink:href"}]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(text: str) -> Balanced:
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert parser.fetched == []
    return parser


def test_a_page_stands_alone():
    text = page.comparison(results(USUAL))
    checked(text)
    assert text.count("<svg") >= 5
    assert "<script" not in text
    assert "&lt;as it comes&gt;" in text
    assert "A &lt;fast&gt; one" in text
    assert ">nan" not in text


def test_a_page_of_growth_stands_alone():
    points = [scale.Point(str(n), n, [60.0 + n / 1000, None if n == 10 else 1.0]) for n in (1, 10, 100)]
    law = scale.law(points, 0, "CPU", "us")
    curve = scale.Curve(title="Keys", across="keys", units=["CPU us", "MiB"], points=points, law=law)
    found = scale.Scale(machine=MACHINE, fastroute="0.1.0", date="2026-11-21", notes=["bounded"], curves=[curve])
    checked(page.scale(found))
    assert "CPU went from 60.0 to 60.1 us: it does not grow" in scale.told(found)


def test_the_law_of_a_curve_tells_what_each_tenfold_adds():
    points = [scale.Point("", 10**n, [50.0 + 20 * n]) for n in range(4)]
    assert scale.law(points, 0, "CPU", "us") == "CPU went from 50.0 to 110 us: 20.0 us more for each tenfold."


def test_plots_bear_nothing_one_value_and_a_zero():
    assert bars([], "us") == ""
    assert "<svg" in bars([Bar("one", 0.0, 0.0, 0.0)], "us")
    assert "<svg" in bars([Bar("one", 1.0, 1.0, 1.0), Bar("other", 1e5, 1.0, 1e9)], "us")
    assert lines({"one": [(0.0, 0.0)]}, "x", "y", log_x=True) == ""
    assert "<svg" in lines({"one": [(1.0, 5.0)]}, "x", "y", log_x=True, log_y=True)


def test_turns_are_interleaved_and_their_order_turns():
    phases = [Phase(name="a", seconds=1), Phase(name="b", seconds=1, stream=True)]
    found = sequence(2, ["one", "two"], phases, json_only=["two"])
    assert found == [
        (0, "a", "one"),
        (0, "a", "two"),
        (0, "b", "one"),
        (1, "a", "two"),
        (1, "a", "one"),
        (1, "b", "one"),
    ]
