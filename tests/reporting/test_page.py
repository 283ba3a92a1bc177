"""The page in a real browser; skipped where there is none."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attnspan.cli import report
from attnspan.runs.attention_maps import AttentionMap, write_attention_maps
from tests.browser import CHROMIUM, Page, browser
from tests.fake_runs import fake_study, sign

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("page")
    arms = ("plain", "bahdanau", "luong_general", "luong_dot")
    directories = fake_study(root / "runs", arms=arms, per_length=5, attention=True)
    kept = AttentionMap(source=list("abcde"), output=["A", "B", "C"], weights=np.eye(3, 5, dtype=np.float32))
    write_attention_maps(directories[2], {"e00000": kept})
    cut = pd.read_parquet(directories[0] / "records.parquet")
    cut.loc[:3, "truncated"] = True
    cut.to_parquet(directories[0] / "records.parquet")
    sign(directories[0])
    assert report.main([str(root / "runs"), "--out", str(root / "report")]) == 0
    return root / "report" / "index.html"


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_without_an_error_a_request_or_a_sideways_scroll(page: Page, made: Path, width: int, dark: bool):
    page.open(made, width=width, dark=dark)
    assert page.of("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled") == []
    asked = [event["request"]["url"] for event in page.of("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [made.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    plots = "[...document.querySelectorAll('svg')].filter(e => e.getBoundingClientRect().width > 0).length"
    assert page.evaluate(plots) == 3


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_keeps_no_reader_out(page: Page, made: Path, width: int, dark: bool):
    page.open(made, width=width, dark=dark)
    assert page.barriers() == []


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(page: Page, made: Path, dark: bool):
    page.open(made, width=1280, dark=dark)
    ground = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (ground < 0.05) == dark
    for selector, colour in (("p", "color"), (".caption", "color"), ("a", "color"), (".wide svg text", "fill")):
        ink = luminance(page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{colour}"))
        lighter, darker = max(ink, ground), min(ink, ground)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector


def test_a_box_hides_its_arm_in_all_plots_and_brings_it_back(page: Page, made: Path):
    page.open(made, width=1280)
    count = "[...document.querySelectorAll('.wide .{}')].filter(e => getComputedStyle(e).display != 'none').length"
    shown = f"{count.format('arm1')} + '/' + {count.format('arm2')}"
    before = page.evaluate(shown)
    one, other = map(int, before.split("/"))
    assert one > 10
    assert other > 10
    legend = "[...document.querySelectorAll('.wide svg text')].filter("
    legend += "e => e.textContent.trim() == '{}' && e.getBoundingClientRect().width).length"
    boxes = "[...document.querySelectorAll('.toggles label')].map(e => e.textContent.trim())"
    names = page.evaluate(boxes)[1:3]
    assert all(page.evaluate(legend.format(name)) >= 2 for name in names)
    page.click("#show-arm1")
    assert page.evaluate(shown) == f"0/{other}"
    assert page.evaluate(legend.format(names[0])) == 0
    assert page.evaluate(legend.format(names[1])) >= 2
    page.click("#show-arm1")
    assert page.evaluate(shown) == before


POINTS = "[...document.querySelectorAll('.wide .drawn input')]"
READ = "[...document.querySelectorAll('.wide .drawn span')].filter(e => getComputedStyle(e).opacity == '1')"
READ += ".map(e => e.textContent).join()"


def test_a_point_tells_its_value(page: Page, made: Path):
    page.open(made, width=1280)
    tips = page.evaluate(f"{POINTS}.map(e => e.labels[0].textContent)")
    assert len(tips) == 4 * 10 + 3 * 10 + 5 * 3 * 10  # five metrics of three arms with attention
    assert any(tip.startswith("plain, 51–60 source tokens: 0.") for tip in tips)
    # The last arm lies above the others, which may cover each other where they are alike.
    place = tips.index(next(tip for tip in tips if tip.startswith("luong_dot, 51–60 source tokens: 0.")))
    assert page.evaluate(READ) == ""
    page.evaluate(f"{POINTS}[{place}].id = 'one'; 0")
    page.hover("#one")
    assert page.evaluate(READ) == tips[place]


@pytest.mark.parametrize(("width", "form"), [(1280, "wide"), (390, "narrow")])
def test_a_point_lies_on_its_mark(page: Page, made: Path, width: int, form: str):
    page.open(made, width=width)
    middle = "(e => (b => [b.x + b.width / 2, b.y + b.height / 2])(e.getBoundingClientRect()))"
    of_arm = "[...document.querySelectorAll('.{} .drawn {}')].map(" + middle + ")"
    for arm in ("arm0", "arm2"):
        marks = np.array(page.evaluate(of_arm.format(form, f"g.{arm} use")))
        points = np.array(page.evaluate(of_arm.format(form, f"label.{arm} input")))
        assert len(points) >= 10
        assert np.linalg.norm(points[:, None] - marks, axis=2).min(axis=1).max() < 1.5


def test_the_keys_reach_every_point_of_a_panel_by_one_tab_stop(page: Page, made: Path):
    page.open(made, width=1280)
    page.evaluate(f"{POINTS}[0].focus()")
    first = page.evaluate("document.activeElement.name")
    tips = page.evaluate(f"{POINTS}.filter(e => e.name == '{first}').map(e => e.labels[0].textContent)")
    for tip in tips[:12]:
        assert page.evaluate(READ) == tip
        page.press("ArrowRight")
    page.press("Tab")
    assert page.evaluate("document.activeElement.name || ''") != first
    hidden = "document.querySelector('#show-arm0').click()"
    page.evaluate(hidden)
    page.evaluate(f"{POINTS}.find(e => e.name == '{first}' && e.offsetParent).focus()")
    assert page.evaluate(READ) == tips[10]  # those of the hidden arm are skipped
    page.evaluate(hidden)
    page.evaluate("document.activeElement.blur()")


def test_no_text_in_a_plot_is_cut_off(page: Page, made: Path):
    for width, kind in ((1280, ".wide"), (390, ".narrow")):
        page.open(made, width=width)
        outside = page.evaluate(
            f"[...document.querySelectorAll('{kind} svg')].flatMap(svg => {{ const s = svg.getBoundingClientRect();"
            " return [...svg.querySelectorAll('text')].filter(t => { const b = t.getBoundingClientRect();"
            " return b.left < s.left - 1 || b.right > s.right + 1 || b.top < s.top - 1 || b.bottom > s.bottom + 1 })"
            ".map(t => t.textContent) })"
        )
        assert outside == []


def test_a_map_is_drawn_with_a_text_beside_it(page: Page, made: Path):
    page.open(made, width=1280)
    image = "document.querySelector('.maps img')"
    assert page.evaluate(f"{image}.complete && {image}.naturalWidth == {image}.width && {image}.width > 100")
    page.click(".maps summary")
    text = page.evaluate("document.querySelector('.maps details').innerText")
    assert "A from a (1, 1.00), B from b (2, 1.00), C from c (3, 1.00)" in text


def test_ids_are_unique_and_headings_in_order(page: Page, made: Path):
    page.open(made, width=1280)
    assert (
        page.evaluate("(ids => ids.length - new Set(ids).size)([...document.querySelectorAll('[id]')].map(e => e.id))")
        == 0
    )
    assert page.evaluate("[...document.querySelectorAll('h1')].length") == 1
    unnamed = "[...document.querySelectorAll('svg, table, .scroll, img')].filter("
    unnamed += "e => !e.getAttribute('aria-label') && !e.alt).length"
    assert page.evaluate(unnamed) == 0


def test_keyboard_reaches_the_boxes(page: Page, made: Path):
    page.open(made, width=1280)
    for _ in range(60):  # past the table of contents
        page.press("Tab")
        if page.evaluate("document.activeElement.id") == "show-arm0":
            break
    assert page.evaluate("document.activeElement.id") == "show-arm0"


def test_it_prints(page: Page, made: Path, tmp_path: Path):
    page.open(made, width=1280)
    page.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('.toggles')).display") == "none"
    assert page.evaluate("document.querySelectorAll('details table')[0].getBoundingClientRect().height") > 100
    assert not page.evaluate("[...document.querySelectorAll('details.screen')].some(e => e.checkVisibility())")
    assert page.evaluate("document.querySelector('.print').checkVisibility()")
    heights = page.evaluate("[...document.querySelectorAll('.wide svg')].map(e => e.getBoundingClientRect().height)")
    assert len(heights) == 3
    assert min(heights) > 100
    assert page.evaluate("document.querySelectorAll('.drawn input')[0].checkVisibility()") is False
    heads = "[...document.querySelectorAll('thead')].map(e => getComputedStyle(e).breakInside)"
    assert set(page.evaluate(heads)) == {"avoid"}  # then it is repeated on every page
