"""The page: complete, escaped, and without a reference to any network."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import BROWSER, open_page
from made_up_sweep import BASELINES, confirmed, made_up_data, made_up_spec

from sweeps.report.page import build_page, in_script, tiles
from sweeps.report.sweep_data import SweepData
from sweeps.report.write import build_sections
from sweeps.states import State

EVIL = "</script><img src=x onerror=alert(1)><b>&"
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no browser on this machine")


class Elements(HTMLParser):
    """All elements with their attributes, and the text in scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script":
            self.scripts[-1] += data

    def ids(self, tag: str) -> list[str | None]:
        return [attributes.get("id") for name, attributes in self.found if name == tag]


def page_of(data: SweepData) -> str:
    return build_page(data, build_sections(data))


def evil_data() -> SweepData:
    """A sweep whose texts try to leave their places."""
    baselines = {EVIL: BASELINES["before"]}
    data = made_up_data(20)
    trials = [
        replace(t, record=replace(t.record, baseline=EVIL if t.number == 0 else None))
        for t in data.trials
    ]
    broken = replace(trials[5].record, state=State.FAILED, reason=EVIL, value=None)
    trials[5] = replace(trials[5], record=broken)
    exploded = next(t for t in trials if t.exploded)
    place = trials.index(exploded)
    reason = f"step 3, norm_ratio in {'backbone'}: {EVIL}"
    trials[place] = replace(exploded, record=replace(exploded.record, reason=reason))
    return replace(
        data,
        name=EVIL,
        spec=made_up_spec(baselines=baselines),
        trials=tuple(trials),
        commands=((f"python -m sweeps.rerun {EVIL}", EVIL),),
    )


def test_sections_are_in_their_order():
    elements = Elements(page_of(confirmed(made_up_data(30), 0.05)))
    assert elements.ids("section") == [
        "verdict",
        "trials",
        "best",
        "explosions",
        "norms",
        "terms",
        "updates",
        "importance",
        "slices",
        "parallel",
        "detections",
        "costs",
        "hand_made",
        "warnings",
    ]


def test_every_figure_has_a_place_and_its_data():
    data = made_up_data(30)
    elements = Elements(page_of(data))
    content = json.loads(elements.scripts[0])
    places = [a["data-figure"] for _, a in elements.found if a.get("data-figure")]
    assert sorted(places) == sorted(content["figures"])
    assert len(places) == len(set(places)) > 10
    assert len(content["tables"][0]["rows"]) == 30


def test_nothing_in_it_points_to_a_network():
    elements = Elements(page_of(made_up_data(10)))
    for tag, attributes in elements.found:
        for name in ("src", "href", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
        assert tag not in ("link", "iframe", "object", "embed", "img", "base")
    policy = next(
        a["content"] for t, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    own = Path(__file__).parents[3] / "sweeps" / "report"
    for name in ("page.css", "page.js", "page.html"):
        assert not re.search(r"https?:|//\w+\.|@import|url\(", (own / name).read_text())


def test_texts_of_users_stay_text():
    text = page_of(evil_data())
    elements = Elements(text)
    assert all(tag != "img" for tag, _ in elements.found)
    assert "onerror=alert" not in re.sub(r"&lt;img.*?&gt;", "", text.split("<script")[0])
    content = json.loads(elements.scripts[0])
    names = {row[1] for row in content["tables"][0]["rows"]}
    assert EVIL in names
    for figure in content["figures"].values():
        for trace in figure["data"]:
            texts = trace.get("text") or []
            assert not any("<img" in str(t) for t in ([texts] if isinstance(texts, str) else texts))


def test_a_text_cannot_end_a_script():
    assert "<" not in in_script(json.dumps({"a": "</script><!--"}))
    assert json.loads(in_script(json.dumps("</script>\u2028"))) == "</script>\u2028"


def test_2000_trials_stay_below_10_megabytes():
    assert len(page_of(made_up_data(2000)).encode()) < 10e6


def test_tiles_show_the_confirmed_value():
    data = made_up_data(30)
    assert tiles(data, [])[0].label.startswith("best, trial ")
    assert tiles(confirmed(data, 0.05), [])[0].label.startswith("confirmed, trial ")


def test_a_sweep_without_any_trial_has_a_page():
    data = replace(made_up_data(2), trials=())
    assert "no trial" in page_of(data).lower()


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["usual", "evil"])
def test_a_real_browser_draws_every_figure_without_a_complaint(tmp_path, kind):
    data = evil_data() if kind == "evil" else confirmed(made_up_data(40), 0.05)
    page = tmp_path / "report.html"
    page.write_text(page_of(data), encoding="utf-8")
    document, console = open_page(page, tmp_path / "profile")
    assert console == []
    assert 'data-drawn="all"' in document
    wanted = len(re.findall(r'id="figure-', document))
    assert document.count('class="main-svg"') >= wanted
    assert len(re.findall(r'<tr class="is-', document)) == min(25, len(data.trials))
    assert "<img" not in document
