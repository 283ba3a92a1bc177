"""The best checkpoint: chosen on validation by the metric that the config names, and never on test."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from datasets import Dataset

from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.prepare import prepare
from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.decoding.strategy import Hypotheses
from attnspan.runs.checkpoint_file import read_checkpoint
from attnspan.runs.layout import BEST, METRICS, RECORDS, SUMMARY
from attnspan.runs.records import read_records
from attnspan.training import lightning_module as lit
from attnspan.training.callbacks.checkpoints import Checkpoints
from attnspan.training.callbacks.recorder import Recorder
from attnspan.training.lightning_module import is_exact
from attnspan.training.run import execute
from attnspan.training.signals import Stop
from tests.conftest import Compose

NAN, INF = float("nan"), float("inf")


def validate(directory: Path, values: list[tuple[float, float]], *, selection_metric: str) -> Checkpoints:
    """Go through validations with these (sequence error rates, losses), one an update."""
    config = {"selection_metric": selection_metric, "checkpoint_interval": 60}
    limit = LengthLimit(ratio=1.0, margin=2)
    checkpoints = Checkpoints(directory=directory, config=config, stop=Stop(), limit=limit, gives_tokens=False)
    trainer: Any = SimpleNamespace(should_stop=False, is_global_zero=True)
    module: Any = SimpleNamespace(state_dict=lambda: {"update": torch.tensor(trainer.global_step)})
    for update, (rate, loss) in enumerate(values, start=1):
        trainer.global_step = update
        trainer.callback_metrics = {
            "validation/loss": torch.tensor(loss, dtype=torch.float64),
            "validation/sequence_error_rate": torch.tensor(rate, dtype=torch.float64),
        }
        checkpoints.on_validation_end(trainer, module)
    return checkpoints


CHOICES = [
    ("loss", [(0.5, 1.0), (0.3, 0.8), (0.1, 0.9)], 2, (0.8, 0.8)),
    ("sequence_error_rate", [(0.5, 1.0), (0.1, 0.9), (0.3, 0.8)], 2, (0.1, 0.9)),
    ("sequence_error_rate", [(0.2, 0.9), (0.2, 0.7), (0.2, 0.8)], 2, (0.2, 0.7)),  # ties go to the lower loss
    ("sequence_error_rate", [(0.2, 0.7), (0.2, 0.7), (0.3, 0.1)], 1, (0.2, 0.7)),  # and then to the first
    ("sequence_error_rate", [(0.2, NAN), (0.2, 3.0), (0.2, NAN)], 2, (0.2, 3.0)),
    ("loss", [(0.2, NAN), (0.2, NAN)], 1, (INF, INF)),
]


@pytest.mark.parametrize(("selection_metric", "values", "best", "kept"), CHOICES)
def test_the_best_by_hand(
    tmp_path: Path, selection_metric: str, values: list[tuple[float, float]], best: int, kept: tuple[float, float]
) -> None:
    checkpoints = validate(tmp_path, values, selection_metric=selection_metric)
    assert (checkpoints.best_update, checkpoints.best) == (best, kept)
    content = read_checkpoint(tmp_path / BEST)
    assert content["global_step"] == int(content["state_dict"]["update"]) == best


def hypotheses(tokens: torch.Tensor, truncated: list[bool] | None = None) -> Hypotheses:
    """What a search found that came to these tokens [B, T], padded with 0."""
    return Hypotheses(
        tokens=tokens,
        lengths=(tokens != 0).sum(dim=1),
        log_prob=torch.zeros(len(tokens)),
        truncated=torch.tensor(truncated or [False] * len(tokens)),
        weights=None,
    )


def test_what_is_exact_by_hand() -> None:
    """Tokens 4 and up; 2 is <eos>, 3 the unknown symbol, which does not equal itself."""
    cases = [
        ([4, 5], [4, 5, 2], False, True),
        ([4, 5], [4, 5, 2], True, False),  # cut at the limit
        ([4], [4, 5, 2], False, False),
        ([4, 5, 6], [4, 5, 2], False, False),
        ([5, 4], [4, 5, 2], False, False),
        ([], [4, 2], False, False),
        ([4, 3], [4, 3, 2], False, False),
        ([4, 3], [4, 5, 2], False, False),
    ]
    for width in (3, 7):  # padding is no matter
        tokens, reference = torch.zeros(len(cases), 3, dtype=torch.long), torch.zeros(len(cases), width).long()
        for row, (said, wanted, _, _) in enumerate(cases):
            tokens[row, : len(said)], reference[row, : len(wanted)] = torch.tensor(said), torch.tensor(wanted)
        found = hypotheses(tokens, truncated=[truncated for _, _, truncated, _ in cases])
        assert is_exact(found, reference).tolist() == [exact for *_, exact in cases]


def test_an_unknown_symbol_is_an_edit() -> None:
    """References 4 3 and 4 5, both answered by 4 3: to say <unk> is wrong for what is unknown too."""
    rows = {"id": ["a", "b"], "source": ["x", "x"], "source_ids": [[4], [4]], "target": ["t new", "t k"]}
    test = Dataset.from_dict(rows | {"target_ids": [[4, 3], [4, 5]]})
    tokenizer: Any = SimpleNamespace(decode=lambda ids, oov_words: str(ids))
    run = {"run_id": "r", "arm": "plain", "data": "d", "seed": 1}
    recorder = Recorder(test=test, target_tokenizer=tokenizer, run=run)
    found = hypotheses(torch.tensor([[4, 3], [4, 3]]))
    references = torch.tensor([[4, 3, 2], [4, 5, 2]])
    exact, ones = is_exact(found, references), torch.ones(2)
    nothing: dict[str, Any] = {"weights": None, "oracle_length": None, "region_size": None}
    tested = lit.TestOutput(nll=ones, correct=ones, exact=exact, hypotheses=found, **nothing)
    batch: Any = SimpleNamespace(
        index=torch.tensor([0, 1]), examples=2, target_output=references, labels=references, oov_words=()
    )
    nobody: Any = None
    recorder.on_test_batch_end(nobody, nobody, tested, batch, 0)
    assert [(record.edits, record.exact_match) for record in recorder.records()] == [(1, False), (1, False)]


def test_an_unknown_criterion(composed: Compose) -> None:
    with pytest.raises(
        InputError, match=r"selection_metric: there is no 'sequence_error'; did you mean 'sequence_error_rate'"
    ):
        composed("selection_metric=sequence_error")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words to say backwards; what is validated is also what is tested.

    Half of that has a sound which training never had: the better the rest is known, the dearer these are to the loss.
    """
    directory, draw = tmp_path_factory.mktemp("files"), random.Random(1)
    words = ["".join(draw.choices("abcd", k=draw.randint(1, 4))) for _ in range(160)]
    known = [f"{word}\t{' '.join(reversed(word))}\n" for word in words]
    unheard = [f"{word}\tunheard of\n" for word in words[130:]]
    (directory / "train.tsv").write_text("".join(known[:100]), encoding="utf-8")
    (directory / "held.tsv").write_text("".join(known[100:] + unheard), encoding="utf-8")
    return directory


def learned(composed: Compose, files: Path, runs: Path, *overrides: str) -> tuple[Path, pd.DataFrame]:
    """A run that learns its words by heart: the longer it does, the surer it is where it is wrong."""
    config = composed(
        *(
            "decoder=luong_dot",
            "model.hidden_size=16",
            "model.embedding_size=8",
            "logger=none",
            "trainer.accelerator=cpu",
        ),
        *("data=files", "data.columns=[word,sounds]", "data.source=word", "data.target=sounds"),
        *("data.source_tokens=characters", "data.target_tokens=symbols", f"data.train={files}/train.tsv"),
        *(f"data.validation={files}/held.tsv", f"data.test={files}/held.tsv"),
        *("trainer.max_steps=160", "trainer.val_check_interval=20", "optimizer.lr=0.05"),
        *("plateau.patience=null", "schedule.decay_share=0", "schedule.warmup_steps=1", "loader.batch_tokens=128"),
        f"runs_dir={runs}",
        *overrides,
    )
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory = run_directory(config, data_fingerprint=prepared.fingerprint)
    execute(config, data=prepared, directory=directory, command="", report=lambda status: None)
    return directory, pd.read_csv(directory / METRICS).dropna(subset=["validation/loss"]).reset_index()


def test_the_choice_by_sequences_is_another_than_by_loss(composed: Compose, files: Path, tmp_path: Path) -> None:
    directory, curves = learned(composed, files, tmp_path, "selection_metric=sequence_error_rate")
    summary, by_loss = read_json(directory / SUMMARY), curves["validation/loss"].idxmin()
    rates = curves["validation/sequence_error_rate"]
    best = curves[rates == rates.min()]["validation/loss"].idxmin()
    assert best != by_loss
    assert best != rates.idxmax()
    assert summary["selection_metric"] == "sequence_error_rate"
    assert summary["best_update"] == curves["step"][best] + 1
    assert summary["best_validation_sequence_error_rate"] == pytest.approx(rates[best])
    assert summary["best_validation_loss"] == pytest.approx(curves["validation/loss"][best])
    # Validation counts as the test does, whose words are the same here: free-running, and the unheard of is wrong.
    assert summary["best_validation_sequence_error_rate"] == pytest.approx(1 - summary["test"]["exact_match"])
    unheard = read_records(directory / RECORDS).iloc[-1]
    assert not unheard["exact_match"]
    assert unheard["edits"] >= unheard["target_length"] == 2

    other, losses = learned(composed, files, tmp_path, "selection_metric=loss")
    assert other != directory
    assert "validation/sequence_error_rate" not in losses  # nobody asked for it, so nothing was decoded
    pd.testing.assert_series_equal(losses["validation/loss"], curves["validation/loss"])  # training is the same
    summary = read_json(other / SUMMARY)
    assert (summary["selection_metric"], summary["best_update"]) == ("loss", losses["step"][by_loss] + 1)
    assert "best_validation_sequence_error_rate" not in summary
