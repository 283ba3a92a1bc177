"""The explorer in a real browser, on runs that were really trained: that it shows what they decoded, and what it says
where it cannot."""

from __future__ import annotations

import shutil
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks import explorer_speed

from attnspan import load_run
from attnspan.analysis.collection import collect
from attnspan.analysis.examples import first_examples
from attnspan.analysis.study import Study, build_study
from attnspan.evaluation.decoded_again import decode_again
from attnspan.evaluation.decoded_study import DecodedStudy, decode_study
from attnspan.evaluation.loaded_run import weights_of_heads
from attnspan.reporting.explorer.contents import examples
from attnspan.reporting.explorer.document import explorer
from attnspan.reporting.explorer.packing import edit_path, quantised
from attnspan.runs.finished_run import Run
from tests.browser import CHROMIUM, Page, browser
from tests.conftest import Compose
from tests.training.test_image_runs import run as run_on_images
from tests.training.test_run import run

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
PER_BIN = 4
ARMS = ("plain", "bahdanau", "luong_local_m", "luong_multihead")
SHORT = ("data.test_size=128", "trainer.max_steps=4", "trainer.val_check_interval=2", "seed=1")


@pytest.fixture(scope="module")
def study(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """An arm without attention, one whose weights are never 0, one whose window leaves most 0, and one of 4 heads."""
    runs = tmp_path_factory.mktemp("runs")
    for arm in ARMS:
        narrow = ["decoder.window.half_width=1"] if arm == "luong_local_m" else []
        run(composed, runs, f"decoder={arm}", *SHORT, *narrow)
    return build_study(collect([runs]), edges=[1, 4, 6, 9])


@pytest.fixture(scope="module")
def decoded(study: Study) -> DecodedStudy:
    return decode_study(study, PER_BIN)


@pytest.fixture(scope="module")
def made(study: Study, decoded: DecodedStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "explore.html"
    path.write_text(explorer(study, decoded, title="tiny (reverse)"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened(made: Path, tmp_path_factory: pytest.TempPathFactory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def show(page: Page, made: Path, fragment: str = "", *, width: int = 1280, dark: bool = False) -> Page:
    """Open the explorer at a fragment, and wait until it is drawn."""
    page.call("Page.navigate", url="about:blank")
    page.open(made, width=width, dark=dark, fragment=fragment)
    end = time.monotonic() + 60
    while not page.evaluate("document.querySelectorAll('.panel').length"):
        assert time.monotonic() < end, "nothing is drawn"
        time.sleep(0.02)
    return page


def run_of(study: Study, arm: str) -> Run:
    return study.arm(arm).runs[0]


def sources(study: Study, page: Page) -> list[str]:
    texts = dict(zip(study.test_set["example_id"], study.test_set["source"], strict=True))
    return [texts[name] for name in page.evaluate("study.examples.map((one) => one.id)")]


# ---- what lies in the file


@needs_browser
def test_the_weights_in_the_page_are_those_of_the_run(study: Study, made: Path, opened: Page) -> None:
    show(opened, made)
    read = "Promise.all(study.examples.map((_, n) => readWeights(n)))."
    read += "then((all) => all.map((q) => q[{0}] && [...q[{0}]].map(weightOf)))"
    for k, arm in enumerate(ARMS):
        found = opened.evaluate(read.format(k))
        assert len(found) == 3 * PER_BIN
        zeros = 0
        for hypothesis, found_weights in zip(
            load_run(run_of(study, arm).directory).decode(sources(study, opened)), found, strict=True
        ):
            if hypothesis.weights is None or not hypothesis.tokens:
                assert found_weights is None
                continue
            weights = hypothesis.weights.numpy().ravel()
            shown = np.array(found_weights)
            assert np.abs(shown - weights).max() <= 0.004
            assert ((shown == 0) == (weights == 0)).all()
            zeros += int((weights == 0).sum())
        assert (zeros > 0) == (arm == "luong_local_m")


@needs_browser
def test_each_head_is_that_of_the_run(study: Study, made: Path, opened: Page) -> None:
    show(opened, made, "#head=3")
    loaded = load_run(run_of(study, "luong_multihead").directory)
    for place, source in enumerate(sources(study, opened)[:4]):
        (hypothesis,) = loaded.decode([source])
        heads = weights_of_heads(loaded, source, hypothesis)
        if heads is None:
            continue
        for head in (1, 4):
            found = opened.evaluate(f"readWeights({place}, {head}).then((q) => [...q[3]].map(weightOf))")
            assert np.abs(np.array(found) - heads[head - 1].numpy().ravel()).max() <= 0.004
    assert opened.evaluate("[...document.querySelectorAll('.steps select')].map((one) => one.value)") == ["3", "heat"]


@needs_browser
def test_the_regions_of_a_picture_take_the_colour_of_their_weights(
    composed: Compose, opened: Page, tmp_path: Path
) -> None:
    run_on_images(composed, tmp_path / "runs", "trainer.max_steps=4", "trainer.val_check_interval=2")
    images = build_study(collect([tmp_path / "runs"]))
    found = decode_study(images, 3)
    assert found.notes == ()
    (of_run,) = found.runs.values()
    path = tmp_path / "explore.html"
    path.write_text(explorer(images, found, title="digits"), encoding="utf-8")
    show(opened, path)
    name = next(name for name, one in of_run.examples.items() if one.output)
    show(opened, path, f"#example={name}")
    assert opened.of("Runtime.exceptionThrown", "Log.entryAdded") == []
    t = opened.evaluate("Math.max(0, panels[0].ofReference[state.ref])")
    assert opened.evaluate(f"point({{ panel: panels[0], t: {t} }})") is None
    opacities = opened.evaluate(
        "[...document.querySelectorAll('.regions rect')].map((e) => +e.getAttribute('fill-opacity'))"
    )
    weights = of_run.examples[name].weights
    assert weights is not None
    assert opacities == pytest.approx(0.75 * np.maximum(np.sqrt(weights[t]), 0.05), abs=0.003)


def test_a_weight_is_kept_to_four_thousandths_and_zero_is_zero() -> None:
    weights = np.concatenate([[0.0, 1e-30, 1.0], np.linspace(0, 1, 5000), np.full(100, 0.01)])
    q = quantised(weights)
    assert np.abs((q / 255.0) ** 2 - weights).max() <= 0.004
    assert ((q == 0) == (weights == 0)).all()
    assert q[-100:].min() > 0
    assert ((q[-100:] / 255.0) ** 2).sum() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("output", "reference", "path"),
    [("", "", ""), ("ab", "ab", "=="), ("xb", "ab", "s="), ("ab", "b", "i="), ("b", "ab", "d="), ("", "ab", "dd")],
)
def test_edits_by_hand(output: str, reference: str, path: str) -> None:
    assert edit_path(list(output), list(reference)) == path


def test_edits_are_as_many_as_the_records_say(study: Study, decoded: DecodedStudy) -> None:
    shown = examples(study, decoded, PER_BIN)
    assert len(shown.entries) == 3 * PER_BIN
    for row, entry in zip(shown.rows, shown.entries, strict=True):
        for arm, output in zip(study.arms, entry["outputs"], strict=True):
            path = output["path"]
            assert len(path) - path.count("=") == output["edits"] == arm.runs[0].records["edits"].iloc[row]
            assert len(output["tokens"]) == len(path) - path.count("d")
            assert len(entry["reference"]) == len(path) - path.count("i")


def test_the_examples_are_those_of_least_id_in_each_bin(study: Study) -> None:
    chosen = first_examples(study, 2)
    records = study.test_set
    for rows, (above, up_to) in zip(chosen, [(1, 4), (4, 6), (6, 9)], strict=True):
        inside = records[(records["source_length"] > above) & (records["source_length"] <= up_to)]
        assert records["example_id"].iloc[rows].tolist() == sorted(inside["example_id"])[:2]


def test_gold_links_are_those_of_the_task(study: Study, decoded: DecodedStudy) -> None:
    for entry in examples(study, decoded, PER_BIN).entries:
        length = len(entry["source"])
        assert sorted(entry["gold"]) == sorted([length - 1 - j, j] for j in range(length))


def test_a_file_that_would_be_too_large_has_fewer_examples(study: Study, decoded: DecodedStudy) -> None:
    whole = explorer(study, decoded, title="")
    assert "were asked for" not in whole
    least = len(examples(study, decoded, 1).entries)
    assert least == 3
    small = explorer(study, decoded, title="", largest=1)
    assert len(small) < len(whole)


# ---- what is refused


def test_what_does_not_equal_the_records_is_left_out(study: Study) -> None:
    one = run_of(study, "bahdanau")
    records = one.records.copy()
    records.loc[0, "hypothesis"] = "another text"
    ids = records["example_id"].iloc[:3].tolist()
    found = decode_again(replace(one, records=records), ids)
    assert (found.different, sorted(found.examples)) == (1, sorted(ids[1:]))


def test_without_checkpoints_one_line_says_so_and_the_edits_are_still_marked(study: Study, tmp_path: Path) -> None:
    directories = []
    for arm in ("plain", "bahdanau"):
        shutil.copytree(run_of(study, arm).directory, tmp_path / arm)
        (tmp_path / arm / "checkpoints" / "best.ckpt").unlink()
        directories.append(tmp_path / arm)
    without = build_study(collect(directories), edges=[1, 4, 6, 9])
    found = decode_study(without, PER_BIN)
    (note,) = found.notes
    assert note.startswith("No attention is shown of plain and bahdanau: ")
    assert note.endswith("plain/checkpoints/best.ckpt: no such file.")
    shown = examples(without, found, PER_BIN)
    assert shown.maps == [""] * len(shown.rows)
    for entry in shown.entries:
        for output in entry["outputs"]:
            assert len(output["path"]) - output["path"].count("=") == output["edits"]


# ---- in the browser


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_opens_without_a_message_a_request_or_a_sideways_scroll(
    made: Path, opened: Page, width: int, dark: bool
) -> None:
    for view in ("heat", "beams"):
        show(opened, made, f"#view={view}", width=width, dark=dark)
        assert opened.of("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled") == []
        asked = {event["request"]["url"].partition("#")[0] for event in opened.of("Network.requestWillBeSent")}
        assert {url for url in asked if not url.startswith("data:")} == {made.as_uri()}
        assert opened.evaluate("document.documentElement.scrollWidth") == width
        assert opened.evaluate("document.querySelectorAll('canvas, svg.beams').length") == 3


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False)])
def test_it_keeps_no_reader_out(made: Path, opened: Page, width: int, dark: bool) -> None:
    show(opened, made, "#view=heat&bin=1", width=width, dark=dark)
    opened.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert opened.barriers() == []


@needs_browser
def test_a_bin_filters_the_examples(study: Study, made: Path, opened: Page) -> None:
    show(opened, made)
    names = study.test_set["example_id"]
    expected = [sorted(names.iloc[rows]) for rows in first_examples(study, PER_BIN)]
    shown = "[...document.querySelectorAll('.rows li')].map((one) => one.querySelector('button').textContent)"
    for place in range(3):
        opened.click(f".bins button[data-bin='{place}']")
        assert opened.evaluate(shown) == expected[place]
        assert f"bin={place}" in opened.evaluate("location.hash")
    opened.click(".column")  # the first bin, in the chart
    assert opened.evaluate(shown) == expected[0]
    opened.click(".bins button[data-bin='']")
    assert opened.evaluate("document.querySelector('#examples [role=status]').textContent").startswith("12 of the 12")


@needs_browser
def test_the_reading_of_a_bin_has_the_studys_numbers(study: Study, made: Path, opened: Page) -> None:
    show(opened, made, "#bin=1")
    said = opened.evaluate("document.querySelector('.reading').textContent")
    for point in study.curve:
        if point.region.label == "5–6" and not point.region.total:
            assert f"{point.arm} † {point.metrics['error_rate'].value:.3f}" in said
    assert f"{study.partition.whole_bins[1].examples} examples" in said


@needs_browser
def test_a_link_opens_an_example_at_a_token(made: Path, opened: Page) -> None:
    show(opened, made)
    name = opened.evaluate("study.examples[7].id")
    show(opened, made, f"#example={name}&ref=2&arms=0.2&sort=gap&view=beams")
    assert opened.evaluate("document.getElementById('attention').textContent") == f"Attention on {name}"
    assert opened.evaluate("document.querySelector('.steps input').value") == "2"
    assert opened.evaluate("[...document.querySelectorAll('.panel')].map((e) => e.getAttribute('aria-label'))") == [
        "plain", "luong_local_m"
    ]  # fmt: skip
    assert "chosen, not typical" in opened.evaluate("document.querySelector('#examples [role=status]').textContent")


@needs_browser
def test_a_stranger_finds_where_one_arm_fails_another_does_not_and_where_it_looked(made: Path, opened: Page) -> None:
    show(opened, made)
    # Arms that were trained for four updates are never right: one is said to be.
    place = opened.evaluate("study.examples.findIndex((one) => one.outputs[1].tokens.length > 2)")
    opened.evaluate(f"study.examples[{place}].outputs[1].exact = true; 0")
    labels = "[...document.querySelectorAll('#examples label')].map((one) => one.innerText.split('\\n')[0])"
    for label, arm in (("With an error by", 0), ("Without an error by", 1)):
        nth = opened.evaluate(labels).index(label)
        select = f"document.querySelectorAll('#examples label')[{nth}].querySelector('select')"
        opened.evaluate(f"{select}.value = '{arm}'; {select}.dispatchEvent(new Event('change')); 0")
    said = opened.evaluate("document.querySelector('#examples [role=status]').textContent")
    assert said.startswith("1 of the 12 examples")
    assert said.endswith("These are chosen, not typical.")
    opened.click(".rows button")
    while opened.evaluate("panels[0].example.id !== state.example"):
        time.sleep(0.02)
    opened.evaluate("panels[1].written.querySelector('[tabindex=\"0\"]').focus()")
    for _ in range(20):
        if opened.evaluate("pointed?.t") != 2:
            opened.press("ArrowRight")
    best = opened.evaluate("largest(panels[1], 2)")
    weight = opened.evaluate(f"weightAt(panels[1], 2, {best}).toFixed(2)")
    source, output = opened.evaluate("[panels[1].example.source, panels[1].output.tokens]")
    said = opened.evaluate("document.querySelector('.steps p').textContent")
    assert said.startswith("Output token 3 of bahdanau, ")
    assert f"bahdanau writes {output[2]} from {source[best]} ({best + 1}, {weight})" in said


LIT = "[...panels[1].source.children].map((one) => +one.style.getPropertyValue('--weight'))"


@needs_browser
def test_an_output_token_lights_up_what_it_looks_at_and_the_reverse(made: Path, opened: Page) -> None:
    place = 0
    show(opened, made)
    place = opened.evaluate("study.examples.findIndex((one) => one.outputs[1].tokens.length > 1)")
    show(opened, made, f"#example={opened.evaluate(f'study.examples[{place}].id')}")
    opened.evaluate("document.querySelector('.steps').style.position = 'static'")
    weights = opened.evaluate("[...panels[1].q].map(weightOf)")
    T, S = opened.evaluate("[panels[1].T, panels[1].S]")
    q = np.sqrt(np.array(weights).reshape(T, S))
    for t in range(2):
        n = opened.evaluate(f"panels[1].steps.findIndex((one) => one.output === {t})")
        opened.hover(f".panel:nth-of-type(2) .tokens:nth-of-type(1) button:nth-child({n + 1})")
        assert opened.evaluate(LIT) == pytest.approx(np.maximum(q[t], 0.05), abs=0.002)
    opened.hover(f".panel:nth-of-type(2) .tokens:nth-of-type(2) button:nth-child({S})")
    lit = "[...panels[1].written.children].map((one) => +one.style.getPropertyValue('--weight'))"
    written = [n for n, one in enumerate(opened.evaluate("panels[1].steps")) if one["output"] >= 0]
    assert [opened.evaluate(lit)[n] for n in written] == pytest.approx(np.maximum(q[:, -1], 0.05), abs=0.002)
    assert f"Source token {S} of {S}" in opened.evaluate("document.querySelector('.steps p').textContent")


@needs_browser
def test_the_keyboard_does_it_all(made: Path, opened: Page) -> None:
    show(opened, made)
    opened.evaluate("document.querySelector('.steps input').focus()")
    opened.press("ArrowRight")
    assert opened.evaluate("location.hash") == "#ref=1"
    assert opened.evaluate("document.querySelector('.steps p').textContent").startswith("Reference token 2 of ")
    stops = "[...document.querySelectorAll('{}')].map((e) => [...e.querySelectorAll('[tabindex=\"0\"]')].length)"
    assert opened.evaluate(stops.format(".tokens, .bins")) == [1] * 9
    opened.evaluate("document.querySelector('.bins [tabindex=\"0\"]').focus()")
    for key, bin_ in (("ArrowRight", "0"), ("ArrowRight", "1"), ("End", "4"), ("Home", "")):
        opened.press(key)
        assert opened.evaluate("document.activeElement.dataset.bin") == bin_
    opened.press("ArrowRight")
    opened.press("Enter")
    assert opened.evaluate("location.hash").startswith("#bin=0")
    assert opened.evaluate("document.activeElement.dataset.bin") == "0"


COUNTED = """
calls = 0;
const watched = [[EventTarget, ['addEventListener']], [CanvasRenderingContext2D, ['fillRect', 'drawImage']]];
for (const [of, names] of watched) {
  for (const name of names) {
    const before = of.prototype[name];
    of.prototype[name] = function (...given) { calls += 1; return before.apply(this, given); };
  }
}
"""


@needs_browser
def test_a_long_example_is_not_drawn_weight_by_weight_nor_heard_token_by_token(opened: Page, tmp_path: Path) -> None:
    """What made it slow: benchmarks/explorer_speed.py has the time, which a busy machine would lengthen here."""
    path = tmp_path / "explore.html"
    path.write_text(explorer_speed.page(arms=3, examples=3), encoding="utf-8")
    show(opened, path)
    opened.evaluate(COUNTED)
    opened.evaluate("change({ example: study.examples[1].id })")
    while opened.evaluate("panels[0].example !== study.examples[1]"):
        time.sleep(0.02)
    assert opened.evaluate("panels.map((one) => one.T * one.S).every((cells) => cells > 8000)")
    assert 0 < opened.evaluate("calls") < 100
    show(opened, path, "#view=beams")
    assert 0 < opened.evaluate("document.querySelectorAll('.beams path').length") < 300


@needs_browser
def test_what_is_downloaded(made: Path, opened: Page) -> None:
    show(opened, made)
    opened.evaluate("saved = []; save = (...what) => saved.push(what); 0")
    kinds = ("SVG", "PNG", "CSV")
    for section in ("section:first-of-type", "section[aria-labelledby=attention]"):
        for place in (1, 2, 3):
            opened.click(f"{section} .downloads button:nth-of-type({place})")
    end = time.monotonic() + 60
    while opened.evaluate("saved.length") < 6 and time.monotonic() < end:
        time.sleep(0.02)
    files = opened.evaluate("saved.map(([name, , content]) => [name, content.size || content])")
    assert sorted(name.rpartition(".")[2].upper() for name, _ in files) == sorted(kinds * 2)
    for name, content in files:
        if name.endswith(".svg"):
            assert ET.fromstring(content).tag.endswith("svg")
        if name.endswith(".png"):
            assert content > 1000
    rows = next(content for name, content in files if name.startswith("reverse-test") and name.endswith("csv")).split()
    sizes = opened.evaluate("panels.filter((one) => one.q).map((one) => one.T * one.S)")
    assert len(rows) == 1 + sum(sizes)
    assert rows[0] == "example,arm,seed,head,output_position,output,source_position,source,weight"
