import dataclasses
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attnspan.analysis.collection import collect, collect_each, find_runs
from attnspan.analysis.study import build_study
from attnspan.config.compose import compose_config
from attnspan.config.config_files import ConfigFiles
from attnspan.errors import InputError
from attnspan.reporting import tables
from attnspan.reporting.csv_files import csv_files
from attnspan.reporting.findings import findings
from attnspan.reporting.subject import subject
from tests.fake_runs import example, fake_run, sign

EXAMPLES = [example(n, 5 + n % 20) for n in range(40)]
EDITS = [n % 3 for n in range(40)]


def run(root: Path, arm: str = "plain", seed: int = 0, **options) -> Path:
    return fake_run(root, arm, seed, options.pop("examples", EXAMPLES), options.pop("edits", EDITS), **options)


def labels(root: Path) -> list[str]:
    return sorted(run.label for run in collect([root]).runs)


def test_a_parent_stands_for_every_run_below(tmp_path):
    made = {run(tmp_path, arm, seed) for arm in ("plain", "bahdanau") for seed in (0, 1)}
    (tmp_path / "pronunciation" / ".hydra").mkdir()
    (tmp_path / "pronunciation" / ".hydra" / "config.yaml").write_text("a: 1")  # Hydra's own, no run
    assert set(find_runs([tmp_path])) == made
    assert set(find_runs([tmp_path / "pronunciation"])) == made
    assert len(collect([tmp_path]).runs) == 4


def test_the_same_run_twice_counts_once(tmp_path):
    one = run(tmp_path)
    assert len(collect([one, tmp_path, one.parent / "." / one.name]).runs) == 1


def test_a_copy_of_a_run_counts_once_and_is_named(tmp_path):
    run(tmp_path / "a")
    run(tmp_path / "b")
    collection = collect([tmp_path])
    assert len(collection.runs) == 1
    assert "the same run as" in collection.excluded[0].reason


def test_no_such_directory(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such directory"):
        collect([tmp_path / "nowhere"])


def test_a_directory_without_runs(tmp_path):
    with pytest.raises(InputError, match="holds no run directory"):
        collect([tmp_path])


def test_only_unusable_runs(tmp_path):
    (run(tmp_path) / "summary.json").unlink()
    with pytest.raises(InputError, match=r"none of the 1 run directories .*is not finished \(summary.json missing"):
        collect([tmp_path])


def excluded_reason(root: Path, bad: Path) -> str:
    """The one run left out beside a good one."""
    collection = collect([root])
    assert [one.directory for one in collection.excluded] == [bad]
    assert bad not in [one.directory for one in collection.runs]
    assert "\n" not in collection.excluded[0].reason
    return collection.excluded[0].reason


def test_unfinished_is_left_out_by_name_with_its_last_state(tmp_path):
    run(tmp_path)
    bad = run(tmp_path, seed=1)
    (bad / "summary.json").unlink()
    (bad / "status.json").write_text('{"state": "running"}')
    assert excluded_reason(tmp_path, bad) == "is not finished (summary.json missing; its last state was 'running')"


def test_a_summary_that_says_unfinished(tmp_path):
    run(tmp_path)
    assert "is not finished" in excluded_reason(tmp_path, run(tmp_path, seed=1, finished=False))


def test_a_run_from_before_the_normalisers_had_the_softmax(tmp_path):
    paths = [f"attnspan.models.attention.normalisers.{name}" for name in ("Softmax", "Entmax15")]
    run(tmp_path / "old", seed=0)
    run(tmp_path / "new", seed=1, config={"decoder.normaliser": {"_target_": paths[0], "_partial_": True}})
    assert labels(tmp_path) == ["plain", "plain"]
    run(tmp_path / "other", seed=0, config={"decoder.normaliser": {"_target_": paths[1], "_partial_": True}})
    assert labels(tmp_path) == ["plain normaliser=entmax15", "plain normaliser=softmax", "plain normaliser=softmax"]


def test_nan_is_left_out_with_row_and_column(tmp_path):
    run(tmp_path)
    bad = run(
        tmp_path,
        seed=1,
        change_records=lambda records: [
            dataclasses.replace(r, nll=float("nan")) if i == 7 else r for i, r in enumerate(records)
        ],
    )
    reason = excluded_reason(tmp_path, bad)
    assert "row 7" in reason
    assert "column 'nll' is nan" in reason


def test_truncated_parquet_is_left_out(tmp_path):
    run(tmp_path)
    bad = run(tmp_path, seed=1)
    whole = (bad / "records.parquet").read_bytes()
    (bad / "records.parquet").write_bytes(whole[: len(whole) // 2])
    assert f"records.parquet has {len(whole) // 2} bytes instead of {len(whole)}" in excluded_reason(tmp_path, bad)


@pytest.mark.parametrize("name", ["records.parquet", "metrics.csv", "config.yaml"])
def test_what_was_changed_since_is_left_out(tmp_path, name):
    """One bit is enough; parquet itself would read over it."""
    run(tmp_path)
    bad = run(tmp_path, seed=1)
    content = bytearray((bad / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bad / name).write_bytes(content)
    assert excluded_reason(tmp_path, bad).endswith(f"({name} was changed after it was written (its sha256 differs))")


def test_weights_are_not_needed(tmp_path):
    """Runs can be sent to somebody who makes a report, without their large files."""
    directory = run(tmp_path)
    shutil.rmtree(directory / "checkpoints")
    assert len(collect([tmp_path]).runs) == 1


def test_records_of_another_run_are_left_out(tmp_path):
    run(tmp_path)
    bad = run(tmp_path, seed=1)
    other = run(tmp_path / "other", seed=2)
    (bad / "records.parquet").write_bytes((other / "records.parquet").read_bytes())
    sign(bad)
    assert "is from another run" in excluded_reason(tmp_path, bad)


def test_an_example_that_is_there_twice(tmp_path):
    run(tmp_path)
    bad = run(tmp_path, seed=1, change_records=lambda records: [*records, records[0]])
    assert "example_id 'e00000' is not unique" in excluded_reason(tmp_path, bad)


def test_a_summary_without_a_needed_key(tmp_path):
    run(tmp_path)
    bad = run(tmp_path, seed=1)
    summary = json.loads((bad / "summary.json").read_text())
    del summary["training_lengths"]
    (bad / "summary.json").write_text(json.dumps(summary))
    assert "key 'training_lengths' is missing" in excluded_reason(tmp_path, bad)


def test_numbers_that_are_none_are_left_out(tmp_path):
    """NaN where attention is, which pandas would take for unknown; nulls; other types; less than nothing."""
    run(tmp_path)
    odd = {
        "attention_entropy": ([[float("nan")]] * len(EXAMPLES), "holds numbers that are not finite"),
        "exact_match": ([None] + [True] * (len(EXAMPLES) - 1), "row 0, column 'exact_match' is null (1 such rows)"),
        "edits": (["two"] * len(EXAMPLES), "column 'edits' is"),
        "truncated": ([None] * len(EXAMPLES), "column 'truncated'"),
    }
    for name, (values, words) in odd.items():
        bad = run(tmp_path, seed=1)
        path = bad / "records.parquet"
        table = pq.read_table(path)
        at = table.column_names.index(name)
        pq.write_table(table.set_column(at, name, pa.array(values)), path)
        sign(bad)
        assert words in excluded_reason(tmp_path, bad)
        shutil.rmtree(bad)
    bad = run(
        tmp_path,
        seed=1,
        change_records=lambda records: [dataclasses.replace(records[0], edits=-1), *records[1:]],
    )
    assert "row 0, column 'edits' is -1, less than 0" in excluded_reason(tmp_path, bad)
    shutil.rmtree(bad)
    bad = run(tmp_path, seed=1, training_lengths=[5])
    assert "training_lengths is [5], not two integers" in excluded_reason(tmp_path, bad)


def test_where_none_can_be_used_each_is_named(tmp_path):
    bad = [run(tmp_path, seed=seed) for seed in (0, 1)]
    (bad[0] / "summary.json").unlink()
    (bad[1] / "records.parquet").unlink()
    with pytest.raises(InputError) as raised:
        collect([tmp_path])
    assert all(f"{directory}: is not finished (" in str(raised.value) for directory in bad)
    assert "\n" not in str(raised.value)


def test_a_key_that_is_set_to_another_is_not_named_too(tmp_path):
    """As ``encoder.hidden_size``, which is ``model.hidden_size`` unless somebody says otherwise."""
    for size in (64, 128):
        run(tmp_path, config={"model.hidden_size": size, "encoder.hidden_size": size})
    assert labels(tmp_path) == ["plain model.hidden_size=128", "plain model.hidden_size=64"]


def test_different_datasets_are_refused(tmp_path):
    run(tmp_path)
    run(tmp_path, "bahdanau", data="reverse")
    with pytest.raises(InputError, match=r"different data sets: .* is on 'pronunciation', .* on 'reverse'"):
        collect([tmp_path])


@pytest.mark.parametrize("larger", ["plain", "bahdanau"])
def test_of_two_test_sets_of_as_many_runs_the_larger_stays(tmp_path, larger):
    kept = run(tmp_path, larger)
    run(tmp_path, "luong_dot", examples=EXAMPLES[:-2], edits=EDITS[:-2])
    found = collect([tmp_path])
    assert [one.directory for one in found.runs] == [kept]
    (left,) = found.excluded
    assert left.reason.startswith("another test set than 1 other run: ")
    assert "40 and 38 examples, 2 only in the first (such as 'e00038')" in left.reason


def test_a_test_set_with_another_reference_is_another(tmp_path):
    first = run(tmp_path)
    changed = [*EXAMPLES[:3], {**EXAMPLES[3], "reference": "another"}, *EXAMPLES[4:]]
    other = run(tmp_path, "bahdanau", examples=changed)
    (left,) = collect([other, first]).excluded
    assert "example 'e00003' has reference 'another' in the" in left.reason


def test_a_run_that_has_not_the_test_set_of_most_is_left_out(tmp_path):
    run(tmp_path)
    run(tmp_path, seed=1)
    bad = run(tmp_path, "bahdanau", examples=EXAMPLES[:-2], edits=EDITS[:-2])
    reason = excluded_reason(tmp_path, bad)
    assert reason.startswith("another test set than 2 other runs: ")
    assert reason.endswith("40 and 38 examples, 2 only in the first (such as 'e00038')")


def test_data_sets_are_told_apart_and_each_names_what_it_left_out(tmp_path):
    run(tmp_path)
    run(tmp_path, data="reverse")
    bad = run(tmp_path, seed=1, data="reverse")
    (bad / "summary.json").unlink()
    (pronunciation, reverse), excluded = collect_each([tmp_path])
    assert [one.summary["data"] for one in (*pronunciation.runs, *reverse.runs)] == ["pronunciation", "reverse"]
    assert pronunciation.excluded == ()
    assert reverse.excluded == excluded
    assert [one.directory for one in excluded] == [bad]


def test_the_order_of_records_does_not_matter(tmp_path):
    run(tmp_path)
    run(tmp_path, "bahdanau", change_records=lambda records: records[::-1])
    first, second = collect([tmp_path]).runs
    assert first.records["example_id"].tolist() == second.records["example_id"].tolist()


def test_data_that_changed_under_one_config_are_refused(tmp_path):
    run(tmp_path)
    run(tmp_path, "bahdanau", data_fingerprint="other")
    with pytest.raises(InputError, match="different data under one config"):
        collect([tmp_path])


def test_an_arm_keeps_its_name_across_seeds_loggers_and_threads(tmp_path):
    run(tmp_path)
    run(tmp_path, seed=1, config={"logger": "none", "threads": 2, "runs_dir": "elsewhere"})
    assert labels(tmp_path) == ["plain", "plain"]


def test_other_configs_are_variants_named_by_what_differs(tmp_path):
    run(tmp_path, config={"model.hidden_size": 64})
    run(tmp_path, config={"model.hidden_size": 128})
    run(tmp_path, "bahdanau")
    assert labels(tmp_path) == ["bahdanau", "plain model.hidden_size=128", "plain model.hidden_size=64"]


def test_a_class_is_a_variant_by_the_choice_that_it_comes_from(tmp_path):
    for optimizer in ("Adam", "SGD"):  # no file has SGD
        run(tmp_path, config={"optimizer._target_": f"torch.optim.{optimizer}"})
    assert labels(tmp_path) == ["plain optimizer=SGD", "plain optimizer=adam"]


CROSSED = {
    "decoder/score=additive,forward": ["luong_general score=additive", "luong_general score=forward"],
    "decoder/score=mono,one_step": ["luong_general score=mono", "luong_general score=one_step"],  # of one class
    "rnn=gru,lstm,min_gru": ["luong_general rnn=gru", "luong_general rnn=lstm", "luong_general rnn=min_gru"],
    "decoder/normaliser=softmax,entmax": ["luong_general normaliser=entmax", "luong_general normaliser=softmax"],
    "decoding=beam decoding.beam_size=5,7": [
        "luong_general decoding.beam_size=5", "luong_general decoding.beam_size=7",
    ],
    "decoding=greedy,beam": ["luong_general decoding=beam", "luong_general decoding=greedy"],
    "decoder/score=forward decoder/score@decoder.score.content=additive,general": [
        "luong_general content=additive", "luong_general content=general",
    ],
}  # fmt: skip


@pytest.mark.parametrize("words", CROSSED)
def test_crossed_choices_are_named_by_their_files(tmp_path, words):
    *same, swept = words.split()
    group, _, choices = swept.partition("=")
    for choice in choices.split(","):
        config = compose_config("decoder=luong_general", "data=copy", *same, f"{group}={choice}")
        run(tmp_path, "luong_general", config={key: config[key] for key in ("decoder", "rnn", "decoding")})
    assert labels(tmp_path) == CROSSED[words]


def test_a_part_with_a_class_of_the_users_own_inside_is_not_called_by_our_file():
    place = "attnspan.models.attention.location"
    score = {"_target_": f"{place}.reversible.ReversibleScore", "location": {"_target_": "my_scores.Elsewhere"}}
    assert ConfigFiles().choice({"decoder": {"score": score}}, "decoder.score") == "score=ReversibleScore"
    score["location"] = {"_target_": f"{place}.relative.OneStepScore"}
    assert ConfigFiles().choice({"decoder": {"score": score}}, "decoder.score") == "score=one_step"


def test_a_choice_of_a_folder_of_the_users_own_has_its_name(tmp_path):
    score = tmp_path / "conf" / "decoder" / "score"
    score.mkdir(parents=True)
    (score / "mine.yaml").write_text("_target_: my_scores.MyScore\n_partial_: true\n")
    for name in ("my_scores.MyScore", "their_scores.TheirScore"):
        run(tmp_path / "runs", config={"decoder.score": {"_target_": name, "_partial_": True}})
    assert labels(tmp_path / "runs") == ["plain score=MyScore", "plain score=TheirScore"]
    files = ConfigFiles((tmp_path / "conf",))
    named = sorted(one.label for one in collect([tmp_path / "runs"], files).runs)
    assert named == ["plain score=TheirScore", "plain score=mine"]


def labelled(folder: Path, **labels: str) -> ConfigFiles:
    """Config files in which arms have labels, and a data set as well."""
    for name, label in labels.items():
        path = folder / ("data" if name == "pronunciation" else "decoder") / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"label: {label}\n")
    return ConfigFiles((folder,))


def test_a_label_is_shown_and_the_name_stays_where_programs_read_it(tmp_path):
    files = labelled(tmp_path / "conf", plain="No attention", pronunciation="Spelling to sound")
    for size in (64, 128):
        run(tmp_path / "runs", config={"model.hidden_size": size})
    run(tmp_path / "runs", "bahdanau")
    study = build_study(collect([tmp_path / "runs"], files))
    shown = [f"No attention model.hidden_size={size}" for size in (64, 128)]
    names = [f"plain model.hidden_size={size}" for size in (64, 128)]
    assert [arm.label for arm in study.arms] == [*shown, "bahdanau"]
    assert study.data_shown == "Spelling to sound"
    for name, frame in csv_files(study).items():
        assert {*frame["arm"]} <= {*names, "bahdanau"}, name
        assert {*frame.get("baseline", [])} <= {*names, "bahdanau", None}, name
    for baseline in (shown[1], names[1]):
        of_one = build_study(study.collection, baseline=baseline)
        assert of_one.compared == dict.fromkeys((shown[0], "bahdanau"), shown[1])
    said = " ".join([*findings(study), *study.notes, *(tables.differences(study).rows[0].cells)])
    assert "No attention" in said
    assert "plain" not in said
    assert "Spelling to sound" in subject(study)["sentences"][0]
    assert subject(study)["arms"][0][1].startswith("No attention: the source enters")  # of attnspan's file


def test_labels_that_do_not_tell_arms_apart_or_are_no_text_are_refused(tmp_path):
    for arm in ("plain", "bahdanau"):
        run(tmp_path / "runs", arm)
    with pytest.raises(InputError, match=r"plain.yaml: label: 'One' is what bahdanau is called, too"):
        collect([tmp_path / "runs"], labelled(tmp_path / "a", plain="One", bahdanau="One"))
    with pytest.raises(InputError, match=r"plain.yaml: label: must be a text of one line, not 3"):
        collect([tmp_path / "runs"], labelled(tmp_path / "b", plain="3"))


def test_a_label_changes_no_run():
    plain = compose_config("decoder=plain", "data=copy")
    assert compose_config("decoder=plain", "data=copy", "+decoder.label=No attention", "+data.label=A") == plain
    with pytest.raises(InputError, match=r"decoder.label: must be a text of one line, not \['a'\]"):
        compose_config("decoder=plain", "data=copy", "+decoder.label=[a]")


FORMER = {
    "decoder._target_": "attnspan.models.bahdanau.BahdanauDecoder",
    "data._target_": "attnspan.data.pronunciation.Pronunciation",
    "search": {"_target_": "attnspan.models.search.Greedy"},
    "choose_by": "loss",
}
TODAY = {
    "decoder._target_": "attnspan.models.decoders.bahdanau.BahdanauDecoder",
    "data._target_": "attnspan.data.corpora.pronunciation.Pronunciation",
    "decoding": {"_target_": "attnspan.models.decoding.greedy.Greedy"},
    "selection_metric": "loss",
}


def test_runs_of_former_and_of_todays_code_are_one_arm(tmp_path):
    """The fingerprint of former code depends on the module of the corpus, which has moved."""
    run(tmp_path, "bahdanau", 0, config=FORMER, data_fingerprint="f" * 64, chosen_by="loss")
    run(tmp_path, "bahdanau", 1, config=TODAY, code="c" * 12, selection_metric="loss")
    assert labels(tmp_path) == ["bahdanau", "bahdanau"]


def test_other_data_under_one_config_are_refused_in_runs_of_former_and_of_todays_code_too(tmp_path):
    run(tmp_path, "bahdanau", 0, config=FORMER, data_fingerprint="f" * 64)
    run(tmp_path, "bahdanau", 1, config=TODAY, code="c" * 12, training_lengths=(5, 61))
    with pytest.raises(InputError, match="different data under one config"):
        collect([tmp_path])


def test_runs_with_other_seeds_and_another_config_are_variants_too(tmp_path):
    run(tmp_path, seed=0, config={"optimizer.lr": 0.01})
    run(tmp_path, seed=1)
    assert labels(tmp_path) == ["plain optimizer.lr=0.001", "plain optimizer.lr=0.01"]


def test_data_config_names_a_variant_only_where_the_data_differ(tmp_path):
    run(tmp_path, seed=0)
    run(tmp_path, seed=1, config={"data.max_length": 40}, data_fingerprint="other")
    assert labels(tmp_path) == ["plain data.max_length=40", "plain data.max_length=60"]
    run(tmp_path / "moved", seed=0)
    run(tmp_path / "moved", seed=1, config={"data.path": "/elsewhere"})
    assert labels(tmp_path / "moved") == ["plain", "plain"]


def test_two_runs_that_cannot_be_told_apart_are_refused(tmp_path):
    run(tmp_path)
    twin = run(tmp_path, config={"threads": 2})  # another id, the same numbers
    assert twin.exists()
    with pytest.raises(InputError, match="are both plain with seed 0, and their configs do not differ"):
        collect([tmp_path])
