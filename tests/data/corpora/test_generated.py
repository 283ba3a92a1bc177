from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from attnspan.data.alignment import GoldAlignment
from attnspan.data.corpora.base import Corpus, GeneratedCorpus
from attnspan.data.corpora.synthetic.copy import Copy
from attnspan.data.corpora.synthetic.dedupe import DeDupe
from attnspan.data.corpora.synthetic.first import First
from attnspan.data.corpora.synthetic.inv_recopy import InvReCopy
from attnspan.data.corpora.synthetic.lookup import LookUp
from attnspan.data.corpora.synthetic.mqar import Mqar
from attnspan.data.corpora.synthetic.mqar_given_keys import MqarGivenKeys
from attnspan.data.corpora.synthetic.positional_retrieval import PositionalRetrieval
from attnspan.data.corpora.synthetic.recall import Recall
from attnspan.data.corpora.synthetic.recall_two_hop import RecallTwoHop
from attnspan.data.corpora.synthetic.recopy import ReCopy
from attnspan.data.corpora.synthetic.reverse import Reverse
from attnspan.data.corpora.synthetic.sort import Sort
from attnspan.data.pipeline.prepare import PreparedData, fingerprint_of
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH

OWN: dict[type[GeneratedCorpus], dict[str, Any]] = {
    Copy: {"symbols": 12},
    Reverse: {"symbols": 12},
    First: {"symbols": 12},
    Recall: {"symbols": 12},
    Mqar: {"symbols": 12, "pairs": 2, "queries": 1, "gaps": "spread"},
    MqarGivenKeys: {"symbols": 12, "pairs": 2, "queries": 1, "gaps": "spread"},
    RecallTwoHop: {"symbols": 12},
    Sort: {"symbols": 12},
    ReCopy: {"symbols": 12, "repeats": [1, 3, 5]},
    InvReCopy: {"symbols": 12, "repeats": [1, 3, 5]},
    DeDupe: {"symbols": 12, "longest_run": 3},
    PositionalRetrieval: {"symbols": 12},
    LookUp: {"tables": 8, "bits": 3, "backward": False},
}
"""Each task with keys of its own."""
TASKS = list(OWN)
ONE_NEEDED = [kind for kind in TASKS if kind not in (Sort, DeDupe, LookUp, InvReCopy, MqarGivenKeys)]
"""Tasks whose outputs are the symbol at one source position each."""


def task(kind: type[GeneratedCorpus], **changes: Any) -> GeneratedCorpus:
    return kind(
        **{
            "source_tokens": "symbols",
            "target_tokens": "symbols",
            "train_lengths": [5, 20],
            "test_lengths": [5, 30],
            "train_size": 160,
            "validation_size": 32,
            "test_size": 78,
            "data_seed": 1,
            "limits": ANY_LENGTH,
        }
        | OWN[kind]
        | changes
    )


def rows(kind: type[GeneratedCorpus], split: str, **changes: Any) -> list[dict[str, Any]]:
    return list(task(kind, **changes).rows(split))


def needed(row: dict[str, Any]) -> list[int]:
    """The source position that each target token needs."""
    links = [tuple(map(int, link.split("-"))) for link in row["alignment"].split()]
    assert [j for _, j in links] == list(range(len(row["target"].split())))
    return [i for i, _ in links]


def gold_of(row: dict[str, Any]) -> GoldAlignment:
    lengths = {f"{side}_length": len(row[side].split()) for side in ("source", "target")}
    return GoldAlignment.parse(row["alignment"], location="", **lengths)


BITS = [f"{value:03b}" for value in range(8)]


@pytest.mark.parametrize("kind", TASKS)
def test_lengths_are_spread_evenly(kind: type[GeneratedCorpus]) -> None:
    side = "target" if kind is InvReCopy else "source"
    assert Counter(len(row[side].split()) for row in rows(kind, "train")) == dict.fromkeys(range(5, 21), 10)
    assert Counter(len(row[side].split()) for row in rows(kind, "validation")) == dict.fromkeys(range(5, 21), 2)
    assert Counter(len(row[side].split()) for row in rows(kind, "test")) == dict.fromkeys(range(5, 31), 3)


@pytest.mark.parametrize("kind", ONE_NEEDED)
def test_alignment_leads_from_each_output_to_the_token_it_needs(kind: type[GeneratedCorpus]) -> None:
    for row in rows(kind, "test"):
        source, target = row["source"].split(), row["target"].split()
        assert [source[position] for position in needed(row)] == target


def test_copy_and_reverse() -> None:
    assert all(row["target"] == row["source"] for row in rows(Copy, "train"))
    assert all(row["target"].split() == row["source"].split()[::-1] for row in rows(Reverse, "train"))
    assert all(needed(row) == sorted(needed(row)) for row in rows(Copy, "train"))
    assert all(needed(row) == sorted(needed(row), reverse=True) for row in rows(Reverse, "train"))


def test_first_asks_for_the_first_symbol() -> None:
    assert all(row["target"] == row["source"].split()[0] for row in rows(First, "test"))
    assert {tuple(needed(row)) for row in rows(First, "test")} == {(0,)}


def test_recall_with_two_hops_looks_up_keys_of_one_pair_each() -> None:
    for row in rows(RecallTwoHop, "test"):
        tokens, answers = row["source"].split(), row["target"].split()
        asked = tokens[-len(answers) :]
        pairs = tokens[: -len(answers)]
        keys, values = pairs[::2], pairs[1::2]
        assert len(set(keys)) == len(keys)
        assert len(set(asked)) == len(asked) >= 1
        assert answers == [dict(zip(keys, values, strict=True))[key] for key in asked]


def test_recall_has_each_queried_key_before_its_value() -> None:
    for row, two_hop in zip(rows(Recall, "test"), rows(RecallTwoHop, "test"), strict=True):
        tokens, answers = row["source"].split(), row["target"].split()
        assert row["source"] == two_hop["source"]
        assert answers[::2] == tokens[-len(answers) // 2 :]
        assert answers[1::2] == two_hop["target"].split()
        assert needed(row)[1::2] == needed(two_hop)
        assert needed(row)[::2] == list(range(len(tokens) - len(answers) // 2, len(tokens)))


@pytest.mark.parametrize("gaps", ["spread", "before_queries"])
def test_mqar_has_its_pairs_and_queries_at_any_length(gaps: str) -> None:
    settings = {"pairs": 4, "queries": 3, "gaps": gaps, "train_lengths": [11, 20], "test_lengths": [11, 30]}
    first_noise = set()
    for row in rows(Mqar, "test", **settings):
        tokens, answers = row["source"].split(), row["target"].split()
        pairs = {tokens[i]: tokens[i + 1] for i in range(len(tokens) - 3) if tokens[i][0] == "k"}
        assert len(pairs) == 4
        assert sum(token[0] == "x" for token in tokens) == len(tokens) - 11
        assert answers[::2] == tokens[-3:]
        assert len(set(answers[::2])) == 3
        assert answers[1::2] == [pairs[key] for key in answers[::2]]
        assert needed(row)[::2] == list(range(len(tokens) - 3, len(tokens)))
        first_noise.add(next((i for i, token in enumerate(tokens) if token[0] == "x"), 8))
    assert first_noise == ({8} if gaps == "before_queries" else {2, 4, 6, 8})


@pytest.mark.parametrize("gaps", ["spread", "before_queries"])
def test_mqar_gives_its_keys_and_asks_for_their_values(gaps: str) -> None:
    settings = {"pairs": 4, "queries": 3, "gaps": gaps, "train_lengths": [8, 20], "test_lengths": [8, 30]}
    for row in rows(MqarGivenKeys, "test", **settings):
        tokens, target = row["source"].split(), row["target"].split()
        pairs = {tokens[i]: tokens[i + 1] for i in range(len(tokens)) if tokens[i][0] == "k"}
        assert len(pairs) == 4
        assert sum(token[0] == "x" for token in tokens) == len(tokens) - 8
        assert row["given"] == [0, 2, 4]
        assert target[1::2] == [pairs[key] for key in target[::2]]
        assert len(set(target[::2])) == 3
        assert gold_of(row).sure == {(tokens.index(key) + 1, 2 * n + 1) for n, key in enumerate(target[::2])}


def test_given_tokens_are_symbols() -> None:
    with pytest.raises(InputError, match=r"^data.target_tokens: must be symbols, of which this data gives some"):
        task(MqarGivenKeys, target_tokens="characters").check()


def test_given_positions_are_in_every_split(ready: Callable[[Corpus], PreparedData]) -> None:
    prepared = ready(task(MqarGivenKeys))
    assert [split["given"][0] for split in (prepared.train, prepared.validation, prepared.test)] == [[0]] * 3
    assert "given" not in ready(task(Copy)).train.column_names


def test_sort_aligns_each_output_with_all_the_symbols_that_it_may_be() -> None:
    assert any("p" in row["alignment"] for row in rows(Sort, "test"))
    for row in rows(Sort, "test"):
        source, target = row["source"].split(), row["target"].split()
        assert [int(symbol) for symbol in target] == sorted(map(int, source))
        gold = gold_of(row)
        for j, symbol in enumerate(target):
            places = {(i, j) for i, other in enumerate(source) if other == symbol}
            assert {link for link in gold.possible if link[1] == j} == places
            assert {link for link in gold.sure if link[1] == j} == (places if len(places) == 1 else set())


def test_recopy_repeats_by_symbol() -> None:
    times = {symbol: 1 if symbol < 4 else 3 if symbol < 8 else 5 for symbol in range(12)}
    for row in rows(ReCopy, "test"):
        assert row["target"].split() == [x for x in row["source"].split() for _ in range(times[int(x)])]
        assert needed(row) == sorted(needed(row))


def test_inverse_recopy_is_recopy_from_target_to_source() -> None:
    for split in ("train", "test"):
        for row, mirrored in zip(rows(InvReCopy, split), rows(ReCopy, split), strict=True):
            assert (row["source"], row["target"]) == (mirrored["target"], mirrored["source"])
            assert gold_of(row).sure == gold_of(row).possible == {(i, j) for j, i in gold_of(mirrored).sure}


def test_dedupe_drops_repetitions() -> None:
    lengths = set()
    for row in rows(DeDupe, "test"):
        source = row["source"].split()
        runs = [[*run] for _, run in groupby(range(len(source)), key=lambda i: source[i])]
        lengths |= {len(run) for run in runs}
        assert row["target"].split() == [source[run[0]] for run in runs]
        gold = gold_of(row)
        assert gold.sure == {(run[0], j) for j, run in enumerate(runs)}
        assert gold.possible == {(i, j) for j, run in enumerate(runs) for i in run}
    assert lengths == {1, 2, 3}


def test_positional_retrieval_reads_symbols_as_positions() -> None:
    for row in rows(PositionalRetrieval, "test"):
        source = row["source"].split()
        assert row["target"].split() == [source[int(x)] for x in source]
        assert needed(row) == [int(x) for x in source]
    assert {x for row in rows(PositionalRetrieval, "test") for x in row["source"].split()} == set(map(str, range(12)))


@pytest.mark.parametrize("backward", [False, True])
def test_a_table_takes_a_value_to_the_same_value_everywhere(backward: bool) -> None:
    tables: dict[tuple[str, str], str] = {}
    for split in ("train", "validation", "test"):
        for row in rows(LookUp, split, backward=backward):
            source, values = row["source"].split()[:: -1 if backward else 1], row["target"].split()
            assert source[0] == values[0]
            for table, value, result in zip(source[1:], values, values[1:], strict=False):
                assert tables.setdefault((table, value), result) == result
            positions = range(len(source))
            assert needed(row) == list(positions[::-1] if backward else positions)
    assert len(tables) == 8 * 8
    for number in range(8):  # permutations
        assert {result for (table, _), result in tables.items() if table == f"t{number}"} == set(BITS)


@pytest.mark.parametrize("kind", TASKS)
def test_examples_depend_on_the_seed_only(kind: type[GeneratedCorpus]) -> None:
    assert rows(kind, "test") == rows(kind, "test")
    assert rows(kind, "test") != rows(kind, "test", data_seed=2)
    assert rows(kind, "train")[:8] == rows(kind, "train", train_size=8)
    assert not {row["source"] for row in rows(kind, "train")} & {row["source"] for row in rows(kind, "test")}


@pytest.mark.parametrize(
    ("kind", "fingerprint"),
    [
        (Copy, "2b2c5245d0eeb6e62b27e19583916e132316a7cb93e71ba009d9ee40d49d72f5"),
        (Reverse, "35d3f6dac92467622f356ac619ff086eb667a778bc8126ffda214e97a15f0236"),
        (RecallTwoHop, "74f4aa1d4b25994a97250f1ba34a363ac5006cd5c104b705d2210c4a437338e6"),
    ],
)
def test_fingerprints_do_not_change(kind: type[GeneratedCorpus], fingerprint: str) -> None:
    """They name caches and enter every run id, so a change invalidates all results."""
    assert fingerprint_of(task(kind)) == fingerprint


def test_the_two_recall_tasks_share_no_cache() -> None:
    """Formerly the other one was called recall."""
    assert fingerprint_of(task(Recall)) != fingerprint_of(task(RecallTwoHop))


@pytest.mark.parametrize("length", ["source", "target", "source-multiple", "target-multiple"])
def test_the_length_of_results_changes_no_example(length: str) -> None:
    assert fingerprint_of(task(Copy, length=length)) == fingerprint_of(task(Copy))


def test_identity_does_not_depend_on_the_module_of_a_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = task(Copy).identity()
    monkeypatch.setattr(Copy, "__module__", "attnspan.somewhere.else_")
    assert task(Copy).identity() == before
    monkeypatch.setattr(Copy, "__module__", "mine.corpora")
    assert task(Copy).identity() == before | {"corpus": "mine.corpora.Copy"}


@pytest.mark.parametrize("kind", [Copy, Reverse, Recall])
def test_prepared_examples_keep_their_alignment(
    kind: type[GeneratedCorpus], ready: Callable[[Corpus], PreparedData]
) -> None:
    prepared = ready(task(kind))
    assert prepared.training_lengths == (5, 20)
    for row in prepared.test:
        shown = prepared.source_tokenizer.tokens(row["source_ids"])
        assert [shown[position] for position in needed(row)] == row["target"].split()
    assert "alignment" not in prepared.train.column_names


def test_only_symbols_are_aligned(ready: Callable[[Corpus], PreparedData]) -> None:
    assert "alignment" not in ready(task(Copy, source_tokens="characters")).test.column_names


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (Recall, {"train_lengths": [4, 9]}, "data.train_lengths: must be at least 5 tokens, not 4"),
        (
            Recall,
            {"symbols": 9},
            "data.test_lengths: a source of 30 tokens needs 10 different keys, but data.symbols=9",
        ),
        (Copy, {"length": "targets"}, "data.length: unknown length 'targets'; did you mean 'target'"),
        (Copy, {"symbols": 0}, "data.symbols: must be a whole number of at least 1, not 0"),
        (Recall, {"symbols": 9}, "data.test_lengths: a source of 30 tokens needs 10 different keys"),
        (Mqar, {"queries": 3}, "data.queries: must be at most data.pairs=2, not 3"),
        (Mqar, {"pairs": 13}, "data.pairs: needs as many different keys, but data.symbols=12"),
        (Mqar, {"pairs": 3}, "data.train_lengths: must be at least 7, the tokens of pairs and queries, not 5"),
        (Mqar, {"gaps": "none"}, "data.gaps: unknown place of the noise 'none'"),
        (MqarGivenKeys, {"pairs": 3}, "data.train_lengths: must be at least 6, the tokens of pairs and queries, not 5"),
        (LookUp, {"train_lengths": [1, 9]}, "data.train_lengths: must be at least 2 tokens, not 1"),
        (LookUp, {"bits": 9}, "data.bits: must be at most 8, not 9"),
        (LookUp, {"tables": 0}, "data.tables: must be a whole number of at least 1, not 0"),
        (LookUp, {"backward": "no"}, "data.backward: must be true or false, not 'no'"),
        (ReCopy, {"repeats": []}, "data.repeats: must have at least one number"),
        (ReCopy, {"repeats": [1, 0]}, "data.repeats: must be a whole number of at least 1, not 0"),
        (ReCopy, {"repeats": 3}, "data.repeats: must be a list of numbers, as in [1,3,5], not 3"),
        (DeDupe, {"symbols": 1}, "data.symbols: must be at least 2"),
        (DeDupe, {"longest_run": 0}, "data.longest_run: must be a whole number of at least 1, not 0"),
        (Sort, {"symbols": 0}, "data.symbols: must be a whole number of at least 1, not 0"),
        (Reverse, {"symbols": "a"}, "data.symbols: must be a whole number of at least 1, not 'a'"),
    ],
)
def test_impossible_settings_are_refused(kind: type[GeneratedCorpus], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        task(kind, **changes).check()
    assert words in str(error.value)
