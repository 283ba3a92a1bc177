"""SCAN's grammar gives the published commands; its splits have the published sizes."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.data.alignment import GoldAlignment
from attnspan.data.corpora.scan import Command, Scan, commands
from attnspan.data.pipeline.prepare import PreparedData, prepare
from attnspan.data.pipeline.reachable import check_references, limit_of_training
from attnspan.errors import InputError
from attnspan.evaluation.length_axis import length_axis
from tests.data.small_corpora import ANY_LENGTH

ACTIONS = {" ".join(command.words): command.actions for command in commands()}
L, R = "I_TURN_LEFT", "I_TURN_RIGHT"


def scan(**changes: Any) -> Scan:
    given = {"source_tokens": "symbols", "target_tokens": "symbols", "split": "length", "validation_size": 840}
    return Scan(**given | {"data_seed": 1, "limits": ANY_LENGTH} | changes)


@pytest.mark.parametrize(
    ("command", "actions"),
    [  # from Lake and Baroni 2018, Figure 1, and the README of the published data
        ("jump", "I_JUMP"),
        ("jump left", f"{L} I_JUMP"),
        ("jump around right", f"{R} I_JUMP {R} I_JUMP {R} I_JUMP {R} I_JUMP"),
        ("turn left twice", f"{L} {L}"),
        ("jump thrice", "I_JUMP I_JUMP I_JUMP"),
        ("jump opposite left and walk thrice", f"{L} {L} I_JUMP I_WALK I_WALK I_WALK"),
        ("jump opposite left after walk around left", " ".join([f"{L} I_WALK"] * 4 + [f"{L} {L} I_JUMP"])),
        ("turn opposite right", f"{R} {R}"),
        ("turn around left", f"{L} {L} {L} {L}"),
    ],
)
def test_a_command_means_what_the_paper_says(command: str, actions: str) -> None:
    assert " ".join(ACTIONS[command]) == actions


def test_the_commands_are_the_published_ones() -> None:
    """The checksum is that of the sorted lines of the published ``tasks.txt``."""
    lines = sorted(f"IN: {command} OUT: {' '.join(actions)}" for command, actions in ACTIONS.items())
    assert len(lines) == len(list(commands())) == 20_910
    published = "345bff3c25864652f326ba1960aa515d156b63f45067ea57268f71d7362a2440"
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == published


def words(found: list[Command]) -> set[str]:
    return {" ".join(command.words) for command in found}


@pytest.mark.parametrize(("split", "training", "test"), [("simple", 16_728, 4_182), ("length", 16_990, 3_920)])
def test_the_splits_have_the_published_sizes_and_share_no_command(split: str, training: int, test: int) -> None:
    found = scan(split=split).divided()
    assert {name: len(some) for name, some in found.items()} == {
        "train": training - 840,
        "validation": 840,
        "test": test,
    }
    assert set.union(*map(words, found.values())) == set(ACTIONS)


def test_the_length_split_trains_up_to_22_actions() -> None:
    found = scan().divided()
    lengths = {name: {len(command.actions) for command in some} for name, some in found.items()}
    assert (max(lengths["train"]), min(lengths["test"]), max(lengths["test"])) == (22, 24, 48)
    assert lengths["validation"] <= lengths["train"]


def test_the_simple_split_is_random_and_depends_on_the_seed_only() -> None:
    first, again, other = (scan(split="simple", data_seed=seed).divided() for seed in (1, 1, 2))
    assert first == again
    assert words(first["test"]) != words(other["test"])
    lengths = [len(command.actions) for command in first["test"]]
    assert max(lengths) == 48
    assert abs(sum(lengths) / len(lengths) - sum(map(len, ACTIONS.values())) / 20_910) < 0.5


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare(scan(), cache_dir=tmp_path_factory.mktemp("cache"))


def test_each_action_is_aligned_to_the_word_that_names_it(prepared: PreparedData) -> None:
    assert prepared.training_lengths == (1, 9)
    assert "alignment" not in prepared.train.column_names
    for row in prepared.test.select(range(50)):
        source, target = row["source"].split(), row["target"].split()
        gold = GoldAlignment.parse(row["alignment"], location="", source_length=len(source), target_length=len(target))
        names = {j: source[i] for i, j in gold.sure}
        assert [names[j].upper() for j in range(len(target))] == [action.split("_")[-1] for action in target]


def test_no_reference_is_out_of_reach_by_default(prepared: PreparedData) -> None:
    assert check_references(prepared, limit_of_training(prepared)).count == 0


def test_results_go_by_the_target_because_only_that_is_longer_than_in_training(prepared: PreparedData) -> None:
    assert prepared.training_target_lengths == (1, 22)
    assert length_axis({"data": {"length": None}}, prepared) == LengthAxis("target")
    assert length_axis({"data": {"length": "source"}}, prepared) == LengthAxis("source")
    assert length_axis({"data": {"length": "target-multiple"}}, prepared) == LengthAxis("target-multiple", 22)


def test_after_reverses_the_order_and_keeps_the_alignment() -> None:
    (command,) = (one for one in commands() if one.words == ("walk", "left", "twice", "after", "jump"))
    assert command.named_by == (4, 1, 0, 1, 0)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"split": "lenght"},
            "data.split: unknown split of SCAN 'lenght'; did you mean 'length'? known: length, simple",
        ),
        ({"validation_size": 0}, "data.validation_size: must be a whole number of at least 1, not 0"),
        ({"validation_size": 16_990}, "data.validation_size: must be less than the 16,990 commands for training"),
        ({"data_seed": "a"}, "data.data_seed: must be a whole number, not 'a'"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as error:
        scan(**changes).check()
    assert str(error.value) == line
