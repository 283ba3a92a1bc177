"""A metric of the user's own: one function and one file."""

from pathlib import Path

import pandas as pd
import pytest

from attnspan.analysis.collection import collect
from attnspan.analysis.own_metric import own_metrics, with_own_metrics
from attnspan.analysis.study import build_study
from attnspan.cli import report
from attnspan.config.config_files import ConfigFiles
from attnspan.data.tokenizer import Tokenizer
from attnspan.errors import InputError
from tests.fake_runs import example, fake_run, sign

FUNCTIONS = """
def vowel_errors(hypothesis, reference, vowels="ae"):
    wanted = [token for token in reference if token in vowels]
    return abs(len(wanted) - sum(token in vowels for token in hypothesis)), len(wanted)

def longer(hypothesis, source):
    return len(hypothesis) > len(source)

def nothing(): return 0
def raises(hypothesis): return 1 / 0
def text(hypothesis): return "0.5"
def three(hypothesis): return 1, 2, 3
def negative(hypothesis): return 1, -1
def undefined(hypothesis): return float("nan")
def mixed(hypothesis): return 1 if hypothesis == ["a"] else (1, 2)
def more(hypothesis, weight): return weight
"""
FILE = """# Vowels that are missing or too many, per vowel of the reference.
_target_: own_functions.vowel_errors
_partial_: true
title: Vowel errors
better: lower
best: 0
worst: 1
digits: 2
"""


@pytest.fixture(autouse=True)
def _functions(tmp_path, monkeypatch):
    (tmp_path / "own_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))


def written(tmp_path: Path, text: str = FILE, name: str = "vowel_errors") -> ConfigFiles:
    path = tmp_path / "conf" / "metric" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return ConfigFiles((tmp_path / "conf",))


def runs(tmp_path: Path) -> Path:
    """30 examples each of ``aeb`` and ``aebcde``; plain writes nothing, bahdanau one vowel too few."""
    pairs = [("aeb", "a"), ("aebcde", "ae")]
    for arm in ("plain", "bahdanau"):
        for seed in (0, 1):
            examples = [
                example(n, len(pairs[n >= 30][0]), source="bcd", reference=pairs[n >= 30][0]) for n in range(60)
            ]

            def write(records, arm=arm):
                said = ["" if arm == "plain" else pairs[n >= 30][1] for n in range(60)]
                return [type(one)(**{**vars(one), "hypothesis": text}) for one, text in zip(records, said, strict=True)]

            made = fake_run(
                tmp_path / "runs", arm, seed, examples, [1] * 60, training_lengths=(1, 3), change_records=write
            )
            for side in ("source", "target"):
                Tokenizer.train("characters", ["abcde"]).save(made / "tokenizers" / f"{side}.json")
            sign(made)
    return tmp_path / "runs"


def test_it_is_computed_from_tokens_and_compares_the_arms_everywhere(tmp_path, capsys):
    written(tmp_path)
    written(tmp_path, "_target_: own_functions.longer\ntitle: Longer than its source\nbetter: lower\n", "longer")
    arguments = [str(runs(tmp_path)), "--config-dir", str(tmp_path / "conf"), "--bins", "0,3,6", "--explore", "0"]
    out = tmp_path / "out"
    assert report.main([*arguments, "--metric", "vowel_errors", "--out", str(out)]) == 0
    curve = pd.read_csv(out / "curve.csv").set_index(["arm", "lengths"])
    found = {key: curve.loc[key, "vowel_errors"] for key in curve.index if "–" in key[1]}
    # plain misses 2 of 2 and 3 of 3; bahdanau 1 of 2 and 1 of 3
    assert found == pytest.approx(
        {("plain", "1–3"): 1, ("plain", "4–6"): 1, ("bahdanau", "1–3"): 1 / 2, ("bahdanau", "4–6"): 1 / 3}
    )
    assert curve["longer"].tolist() == [0] * 8
    differences = pd.read_csv(out / "differences.csv").set_index("lengths")
    assert differences.loc["1–3", "advantage"] == pytest.approx(0.5)
    assert set(differences["metric"]) == {"vowel_errors"}
    for name in ("index.html", "report.md"):
        text = (out / name).read_text()
        assert "Vowel errors by source length" in text
        assert "By vowel errors, bahdanau has 0.50 on sources of 1–3 tokens" in text
        assert "1.00" in text
    assert r"\caption{Vowel errors by source length" in (out / "tables.tex").read_text()
    assert "By vowel errors, bahdanau has 0.50" in " ".join(capsys.readouterr().out.split())
    assert report.main([*arguments, "--metric", "vowel_error", "--out", str(out)]) == 2
    assert "there is no such metric; did you mean 'vowel_errors'?" in capsys.readouterr().err


def test_its_arguments_are_keys_of_the_file(tmp_path):
    (metric,) = own_metrics(written(tmp_path, f"{FILE}vowels: a\n"))
    collection = with_own_metrics(collect([runs(tmp_path)]), [metric])
    study = build_study(collection, edges=[0, 3, 6], own=[metric])
    values = {(point.arm, point.region.label): point.metrics["vowel_errors"].value for point in study.curve}
    assert values["bahdanau", "1–3"] == 0  # the one a of aeb is there
    assert [(one.name, one.digits) for one in study.quality_metrics][-1] == ("vowel_errors", 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", r"example 'e00000' of .*: ZeroDivisionError: division by zero \(own_functions.py line 10\)"),
        ("text", r"text.yaml: example 'e00000' of .*: returned '0.5', not a number or two"),
        ("three", "returned 3 numbers, not one, or a numerator and a denominator"),
        ("negative", "returned the denominator -1, which is below 0"),
        ("undefined", "returned nan, not a number or two"),
        ("mixed", "mixed.yaml: returns a number of one example and a pair of another"),
    ],
)  # fmt: skip
def test_a_function_that_gives_no_number_is_one_line_with_the_example(tmp_path, name, message):
    metrics = own_metrics(written(tmp_path, f"_target_: own_functions.{name}\ntitle: A\nbetter: lower\n", name))
    with pytest.raises(InputError, match=message) as caught:
        with_own_metrics(collect([runs(tmp_path)]), metrics)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title: Vowel errors\n", ""), "vowel_errors.yaml: title must be the metric's name in captions, not None"),
        (("better: lower", "better: low"), "better must be higher or lower, not 'low'"),
        (("worst: 1", "worst: -1"), "best is 0 and worst is -1, but lower is better"),
        (("worst: 1\n", ""), "worst must be a number, as best and worst are given together, not None"),
        (("digits: 2", "digits: many"), "digits must be a whole number from 0 to 9, not 'many'"),
        (("title:", "titel:"), r"vowel_errors.yaml: titel: there is no such key; did you mean 'title'\?"),
        (("_target_: own_functions.vowel_errors", ""), "_target_ is missing"),
        (("vowel_errors\n", "vowel_error\n"), r"own_functions has no 'vowel_error'; did you mean 'vowel_errors'\?"),
        (("own_functions", "own_function"), "No module named 'own_function'; .*PYTHONPATH=DIR"),
        (("own_functions.vowel_errors", "own_functions.nothing"), "the function takes none of them"),
        (("own_functions.vowel_errors", "own_functions.more"), "'weight' has no value"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as caught:
        own_metrics(written(tmp_path, FILE.replace(*change)))
    assert "\n" not in str(caught.value)


def test_it_may_not_take_the_name_of_one_of_ours(tmp_path):
    with pytest.raises(InputError, match=r"exact_match.yaml: the name .*: attnspan has a metric"):
        own_metrics(written(tmp_path, name="exact_match"))
