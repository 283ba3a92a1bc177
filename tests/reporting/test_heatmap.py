"""The picture of attention: every weight stands at its own two tokens, in the terminal and in the files."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from rich.console import Console

from attnspan.errors import InputError
from attnspan.reporting import heatmap_figure as heatmap_plot
from attnspan.reporting.formatting import visible
from attnspan.reporting.heatmap_figure import draw, save
from attnspan.reporting.heatmap_text import lines
from attnspan.reporting.pictures import fonts
from attnspan.reporting.pictures.text import picture_lines
from attnspan.runs.attention_maps import AttentionMap, Picture

TITLE = ("bahdanau", "copy", "seed 1", "run 0123456789ab")
TOKENS = {
    "characters": (list("attention"), ["AH0", "T", "EH1", "N", "SH", "AH0", "N"]),
    "words": (
        ["das", "ist", "ein", "schönes", "Haus", "am", "Zürichsee"],
        ["a", "beautiful", "house", "by", "Lake", "Zurich", ",", "isn", "'", "t", "it", "?"],
    ),
    "marks": (list("t͡ʃa ɑ̃ŋ\n"), ["t͡ʃ", "ɑ̃", " ", "क्ष", "日本", "\u0303", "<unk>"]),
    "wide": (list("日本語の文章"), list("Nihongo")),
    "right to left": (list("שלום עולם"), list("سلام")),
    "markup": (["$x$", "<&>", "-->", "[red]", "$\\frac{", "_"], ["\\", "%", "$", ":smile:"]),
    "one": (["x"], ["y"]),
}


def heatmap(source: Sequence[str], output: Sequence[str]) -> AttentionMap:
    """Weights of which no two are alike, in no order that a transposed or shifted map would have too."""
    T, S = len(output), len(source)
    weights = np.random.default_rng(T * 100 + S).permutation(T * S).reshape(T, S) / max(T * S - 1, 1)
    return AttentionMap(source=source, output=output, weights=weights)


@pytest.fixture(params=list(TOKENS))
def drawn(request: pytest.FixtureRequest) -> AttentionMap:
    return heatmap(*TOKENS[request.param])


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (4, 2), (3, 4)])
def test_tokens_and_weights_must_be_as_many(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="for 3 output and 2 source"):
        AttentionMap(source=["a", "b"], output=["a", "b", "c"], weights=np.zeros(shape))


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" ", "␣"), (" the", "␣the"), ("\n", "\\n"), ("\t", "\\t"), ("\u3000", "\\u3000"),
        ("\u0303", "◌\u0303"), ("ɑ̃", "ɑ̃"), ("\u200d", "\\u200d"),
        ("क्\u200dष", "क्\u200dष"), ("\u202e", "\\u202e"), ("\x1b[31m", "\\x1b[31m"), ("\ud800", "\\ud800"),
        ("a", "a"), ("日", "日"), ("<unk>", "<unk>"),
    ],
)  # fmt: skip
def test_every_token_can_be_seen(token: str, shown: str) -> None:
    assert visible(token) == shown


# ---- terminal


def grid(text: str) -> list[str]:
    """The columns of a terminal, by the Unicode standard and not by the library that draws."""
    columns: list[str] = []
    for character in text.lstrip("\u200e"):
        if unicodedata.category(character) in ("Mn", "Me", "Mc", "Cf"):
            columns[-1] += character
        else:
            columns += [character] + [""] * (unicodedata.east_asian_width(character) in "WF")
    return columns


def shade(weight: float) -> str:
    if weight == 0:
        return " "
    return (
        "█" if weight >= 0.75 else "▓" if weight >= 0.5 else "▒" if weight >= 0.25 else "░" if weight >= 0.05 else "·"
    )


def plain_console(width: int, encoding: str = "utf-8") -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=width, highlight=False)


def cells(text: Sequence[str], source: Sequence[str], output: Sequence[str]) -> dict[tuple[int, int], str]:
    """Read a map back: for each source token the place where its label stands, and what stands there in each row."""
    found: dict[tuple[int, int], str] = {}
    column, rest = 0, list(text)
    while column < len(source):
        while not rest[0].strip() or rest[0].startswith("source tokens"):
            rest.pop(0)
        header, rows, rest = grid(rest[0]), [grid(row) for row in rest[1 : len(output) + 1]], rest[len(output) + 1 :]
        at = 0
        while column < len(source):
            while at < len(header) and header[at].strip(" \u200e") == "":
                at += 1
            if at == len(header):
                break
            label = visible(source[column])
            width = len(grid(label))
            assert "".join(header[at : at + width]).strip("\u200e ") == label
            for t, row in enumerate(rows):
                assert "".join(row[: at + 1]).lstrip(" \u200e").startswith(visible(output[t]))
                found[t, column] = row[at]
            at, column = at + width, column + 1
    return found


@pytest.mark.parametrize("width", [200, 33])
def test_the_terminal_shows_each_weight_beneath_and_beside_its_tokens(drawn: AttentionMap, width: int) -> None:
    *text, legend = [line.plain for line in lines(drawn, plain_console(width))]
    found = cells(text, drawn.source, drawn.output)
    assert found == {(t, j): shade(weight) for (t, j), weight in np.ndenumerate(drawn.weights)}
    assert all(len(grid(line)) <= width for line in text)
    assert "░ from 0.05" in legend


def test_a_long_source_goes_on_below() -> None:
    source = [str(number % 10) for number in range(100)]
    text = [line.plain for line in lines(heatmap(source, ["a", "b"]), plain_console(80))]
    assert [line for line in text if line.startswith("source")] == [
        "source tokens 1 to 39 of 100",
        "source tokens 40 to 78 of 100",
        "source tokens 79 to 100 of 100",
    ]
    assert len(cells(text, source, ["a", "b"])) == 200


def test_a_token_that_is_wider_than_the_terminal_is_cut() -> None:
    *text, _ = [line.plain for line in lines(heatmap(["a" * 300, "b"], ["c" * 300]), plain_console(40))]
    assert all(len(line) <= 50 for line in text)
    assert "a" * 21 + "..." in text[1]


def test_colours_stand_where_the_shades_would() -> None:
    one = heatmap(*TOKENS["characters"])
    console = Console(file=io.StringIO(), force_terminal=True, color_system="256", width=100, highlight=False)
    header, *rows = list(lines(one, console))[: 1 + len(one.output)]
    for (t, j), weight in np.ndenumerate(one.weights):
        at = header.plain.index("attention"[0]) + 2 * j
        colour = rows[t].get_style_at_offset(console, at).bgcolor
        assert colour is not None or weight == 0
        assert colour is None or colour.number == (255, 195, 153, 117, 75, 33, 27, 26, 20, 18, 17)[round(weight * 10)]


@pytest.mark.parametrize("console", [{"no_color": True, "color_system": "256"}, {"color_system": "standard"}])
def test_characters_where_there_are_no_256_colours(console: dict[str, object]) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    terminal = Console(file=stream, force_terminal=True, width=100, highlight=False, **console)  # type: ignore[arg-type]
    for line in lines(heatmap(*TOKENS["words"]), terminal):
        terminal.print(line, soft_wrap=True)
    stream.flush()
    printed = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "\x1b" not in printed
    assert "█" in printed


def test_an_output_that_takes_ascii_only_stays_aligned() -> None:
    one = heatmap(*TOKENS["marks"])
    header, *rows = [line.plain for line in lines(one, plain_console(400, "ascii"))]
    assert "".join([header, *rows]).isascii()
    assert "\\u0361" in header
    assert len({len(row) for row in [header, *rows[: len(one.output)]]}) == 1


# ---- figure


def test_the_figure_shows_each_weight_beneath_and_beside_its_tokens(drawn: AttentionMap) -> None:
    """By the pixels: all around where the middles of two labels meet, as they are drawn, is the weight's colour."""
    figure = draw(drawn, title=TITLE)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of glyphs that are missing
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    axes = figure.axes[0]
    columns, rows = axes.get_xticklabels(), axes.get_yticklabels()
    assert [label.get_text() for label in columns] == fonts.drawable(drawn.source)[1][0]
    assert [label.get_text() for label in rows] == fonts.drawable(drawn.output)[1][0]
    assert not any(label.get_parse_math() for label in (*columns, *rows))
    boxes = [label.get_window_extent() for label in (*columns, *rows)]
    across = [(box.x0 + box.x1) / 2 for box in boxes[: len(columns)]]
    upwards = [(box.y0 + box.y1) / 2 for box in boxes[len(columns) :]]
    assert across == sorted(across)  # the source runs to the right
    assert upwards == sorted(upwards, reverse=True)  # the output runs downwards
    aside = 0.3 * axes.get_window_extent().width / len(columns)  # well inside a cell whose middle is meant
    for j, x in enumerate(across):
        for t, y in enumerate(upwards):
            expected = heatmap_plot._COLOURS(drawn.weights[t, j] or np.nan)[:3]  # white where it is exactly 0
            for dx, dy in ((-aside, -aside), (-aside, aside), (aside, -aside), (aside, aside)):
                shown = pixels[pixels.shape[0] - 1 - int(y + dy), int(x + dx), :3] / 255
                assert np.abs(shown - expected).max() < 0.02, (t, j)


def test_the_written_svg_shows_the_same(tmp_path: Path) -> None:
    one = heatmap(["a", "b", "c", "d"], ["U", "V", "W"])
    save(draw(one, title=TITLE), tmp_path / "map.svg")
    text = (tmp_path / "map.svg").read_text(encoding="utf-8")
    places = {
        label: (float(x) + 3, float(y) - 3)  # well inside a letter of 9 points
        for label, x, y in re.findall(r"<!-- (\w) -->\s*<g [^>]*translate\(([\d.]+) ([\d.]+)\)", text)
    }
    boxes = []
    for path, fill in re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="fill: (#\w+); stroke: #e8e8e8', text):
        corners = np.array(re.findall(r"[\d.]+", path), dtype=float).reshape(-1, 2)
        boxes.append((*corners.min(axis=0), *corners.max(axis=0), fill))
    assert len(boxes) == 12
    for (t, j), weight in np.ndenumerate(one.weights):
        x, y = places[one.source[j]][0], places[one.output[t]][1]
        (fill,) = [fill for left, top, right, bottom, fill in boxes if left < x < right and top < y < bottom]
        assert np.abs(np.array(to_rgb(fill)) - heatmap_plot._COLOURS(weight or np.nan)[:3]).max() < 0.01


@pytest.mark.parametrize("tokens", ["marks", "markup"])
def test_the_files_are_whole_and_the_same_every_time(tokens: str, tmp_path: Path) -> None:
    drawn = heatmap(*TOKENS[tokens])
    for name in ("a.png", "b.png", "a.svg", "b.svg"):
        save(draw(drawn, title=TITLE), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]
    for suffix in (".png", ".svg"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert ET.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")


def test_what_no_font_has_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    dejavu = next(fonts._fonts())
    assert dejavu.name == "DejaVu Sans"
    monkeypatch.setattr(fonts, "_fonts", lambda: iter([dejavu]))
    families, (source, output) = fonts.drawable(["日a", "ʃ"], ["क", " "])
    assert families == ["DejaVu Sans"]
    assert source == ["\\u65e5a", "ʃ"]
    assert output == ["\\u0915", "␣"]


def test_title_and_scale_say_what_is_seen() -> None:
    figure = draw(heatmap(["a"], ["b"]), title=TITLE)
    axes, scale = figure.axes
    title = axes.get_title(loc="left").replace("\u00a0", " ").replace("\n", " ")
    assert title == "bahdanau, copy, seed 1, run 0123456789ab"
    assert scale.get_ylim() == (0, 1)
    assert scale.get_ylabel() == "attention weight"


@pytest.mark.parametrize(("S", "T"), [(5, 5), (100, 100), (150, 2)])
def test_any_length_has_a_sensible_size(S: int, T: int) -> None:
    figure = draw(heatmap(["a"] * S, ["b"] * T), title=TITLE)
    width, height = figure.get_size_inches()
    axes = figure.axes[0]
    box = axes.get_position()
    assert width * box.width / S == pytest.approx(height * box.height / T)  # square cells
    assert 0.1 < width * box.width / S < 0.3
    assert width < 14 or S > 100
    assert min(label.get_fontsize() for label in axes.get_xticklabels()) >= 5


def test_a_file_that_cannot_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match=r"map\.png: cannot be written \(No space left on device"):
        save(draw(heatmap(["a"], ["b"]), title=TITLE), tmp_path / "map.png")
    assert not list(tmp_path.iterdir())


def picture_map() -> AttentionMap:
    """A dark image of 5 x 11 pixels in regions of 2 x 4: 3 rows, 3 columns; two tokens look at two places."""
    pixels = np.zeros((1, 5, 11), dtype=np.uint8)
    weights = np.zeros((2, 9))
    weights[0, 5], weights[0, 0] = 0.6, 0.2  # row 2, column 3, of which 3 pixels are there
    weights[1, 7] = 0.3
    names = [f"{row},{column}" for row in (1, 2, 3) for column in (1, 2, 3)]
    picture = Picture(pixels=pixels, region_size=(2, 4))
    return AttentionMap(source=names, output=["girl", "ball"], weights=weights, picture=picture)


def test_an_image_is_drawn_for_every_token_with_its_regions_coloured() -> None:
    drawn = draw(picture_map(), title=["bahdanau", "seed 1"])
    first, second, scale = drawn.axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["girl", "ball"]
    assert scale.get_ylim() == (0, 0.6)
    shown = [np.asarray(axes.get_images()[0].get_array()) for axes in (first, second)]
    assert all(image.shape == (5, 11, 3) for image in shown)
    redness = [image[..., 0] - image[..., 2] for image in shown]  # of a red more than blue
    darkness = [3 - image.sum(axis=2) for image in shown]
    expected = np.zeros((5, 11))
    expected[2:4, 8:] = 3
    expected[:2, :4] = 1
    assert (np.argsort([darkness[0][0, 8], darkness[0][0, 0], darkness[0][2, 8]]) == [0, 1, 2]).all()
    assert ((redness[0] > 0.01) == (expected > 0)).all()
    assert ((redness[1] > 0.01) == np.pad(np.ones((1, 4)), ((4, 0), (4, 3)))).all()


def test_a_terminal_says_the_grid_and_where_each_token_looks() -> None:
    printed = [line.plain for line in picture_lines(picture_map(), Console(width=80, file=io.StringIO()))]
    assert printed[0] == "regions of 2 x 4 pixels in 3 rows and 3 columns"
    assert printed[1] == "girl  0.60 at row 2, column 3"
    assert [row[2:] for row in printed[2:5]] == ["▒  ", "  █", "   "]
    assert printed[5] == "ball  0.30 at row 3, column 2"
    assert printed[8].strip() == "█"
    narrow = [line.plain for line in picture_lines(picture_map(), Console(width=5, file=io.StringIO()))]
    assert narrow[0].endswith("; the first 2 columns are shown")
    assert narrow[3] == "    "


def test_a_picture_must_fit_the_weights() -> None:
    with pytest.raises(ValueError, match=r"8 source positions for regions in a grid of \(3, 3\)"):
        replace(picture_map(), source=["a"] * 8, weights=np.zeros((2, 8)))
