import dataclasses

import numpy as np
import pytest

from attnspan.analysis.collection import collect
from attnspan.analysis.examples import degenerate_outputs, mapped_examples
from attnspan.analysis.study import build_study
from attnspan.cli import report
from attnspan.reporting.page import _in_words
from attnspan.runs.attention_maps import AttentionMap, write_attention_maps
from attnspan.runs.layout import ATTENTION
from tests.fake_runs import example, fake_run

EXAMPLES = [example(n, 4 if n < 30 else 8) for n in range(60)]
ENTROPIES = [{"attention_entropy": [0.5] * one["target_length"]} for one in EXAMPLES]
SHORT = AttentionMap(
    source=list("abcd"), output=["A", " "], weights=np.array([[0, 0.75, 0.25, 0], [0, 0, 0, 1]], np.float32)
)


def marked(kind: str, *names: str):
    """Outputs of these examples are of that kind."""
    return lambda records: [
        dataclasses.replace(record, hypothesis=f"{kind} output", **{kind: True})
        if record.example_id in names
        else record
        for record in records
    ]


@pytest.fixture
def study(tmp_path):
    """plain with seeds 0 and 1, bahdanau with seeds 0 (kept no map) and 1 (kept one), luong without any map."""
    same = {"examples": EXAMPLES, "edits": [1] * 60, "training_lengths": (1, 4)}
    fake_run(tmp_path, "plain", 0, **same, change_records=marked("repeating", "e00007", "e00031"))
    fake_run(tmp_path, "plain", 1, **same, change_records=marked("repeating", "e00003", "e00007"))
    fake_run(tmp_path, "bahdanau", 0, **same, attention=ENTROPIES)
    kept = fake_run(tmp_path, "bahdanau", 1, **same, attention=ENTROPIES, change_records=marked("empty", "e00059"))
    fake_run(tmp_path, "luong_dot", 0, **same, attention=ENTROPIES)
    write_attention_maps(kept, {"e00000": SHORT, "e00030": dataclasses.replace(SHORT)})
    return build_study(collect([tmp_path]), edges=[0, 4, 8])


def test_each_example_has_a_map_of_every_arm_or_says_why_not(study):
    short, long = mapped_examples(study)
    assert (short.example_id, short.source_length) == ("e00000", 4)
    assert short.in_training == "within the lengths seen in training"
    assert (long.example_id, long.source) == ("e00030", EXAMPLES[30]["source"])
    assert long.in_training == "longer than any seen in training"
    plain, bahdanau, luong = short.maps
    assert plain.missing == "has no attention"
    assert luong.missing == "kept no attention weights"
    assert bahdanau.seed == 1
    assert bahdanau.heatmap is not None
    assert bahdanau.heatmap.weights.tolist() == SHORT.weights.tolist()


def test_a_map_in_words():
    assert _in_words(SHORT) == "A from b (2, 0.75), ␣ from d (4, 1.00)"


def test_who_saw_an_example_where_arms_were_trained_differently(tmp_path):
    same = {"examples": EXAMPLES, "edits": [1] * 60}
    fake_run(tmp_path, "plain", 0, **same, training_lengths=(1, 8))
    kept = fake_run(tmp_path, "bahdanau", 0, **same, attention=ENTROPIES, training_lengths=(1, 4))
    write_attention_maps(kept, {"e00000": SHORT, "e00030": dataclasses.replace(SHORT)})
    short, long = mapped_examples(build_study(collect([tmp_path]), edges=[0, 4, 8]))
    assert short.in_training == "within the lengths seen in training"
    assert long.in_training == "seen only by arms trained up to 8 source tokens"


def test_an_output_that_is_empty_is_said_to_be(study):
    directory = study.arm("bahdanau").runs[1].directory
    write_attention_maps(study.arm("luong_dot").runs[0].directory, {"e00059": SHORT})
    (one,) = [one for one in mapped_examples(study) if one.example_id == "e00059"]
    assert directory.exists()
    assert one.maps[1].missing == "has an empty output"


def test_a_file_that_cannot_be_read_is_named(study):
    path = study.arm("luong_dot").runs[0].directory / ATTENTION
    path.write_bytes(b"nothing")
    assert mapped_examples(study)[0].maps[2].missing.startswith(f"cannot be read: {path}: holds no attention weights")


def test_a_failure_is_the_one_of_least_id_and_the_kinds_are_counted_over_seeds(study):
    found = {(one.metric.name, one.region.label, one.arm): one for one in degenerate_outputs(study)}
    assert set(found) == {
        ("repeating", "1–4", "plain"), ("repeating", "5–8", "plain"), ("empty", "5–8", "bahdanau")
    }  # fmt: skip
    one = found["repeating", "1–4", "plain"]
    assert (one.example_id, one.seed, one.outputs, one.out_of) == ("e00003", 1, 3, 60)
    assert (one.hypothesis, one.reference) == ("repeating output", EXAMPLES[3]["reference"])


def test_the_page_shows_both(study, tmp_path):
    assert report.main([str(tmp_path), "--out", str(tmp_path.parent / "out"), "--bins", "0,4,8"]) == 0
    text = (tmp_path.parent / "out" / "index.html").read_text()
    assert text.count('<img src="data:image/png;base64,') == 2
    assert "<strong>plain</strong> has no attention; " in text
    assert "repeating output" in text
    assert "3 of 60" in text
