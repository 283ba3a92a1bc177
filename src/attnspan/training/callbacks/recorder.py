"""Makes the records of the test examples."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import lightning as L
from datasets import Dataset
from torch import Tensor

from attnspan.analysis.alignment import attention_columns
from attnspan.data.arrow import without_pixels
from attnspan.data.given import GIVEN
from attnspan.data.pipeline.batches import Batch
from attnspan.data.pipeline.gold import source_positions
from attnspan.data.pipeline.prepare import token_counts
from attnspan.data.tokenizer import EOS, PAD, UNK, Tokenizer
from attnspan.models.decoding.strategy import Hypotheses
from attnspan.runs.records import Record, edit_distance, score_hypothesis, scored_tokens
from attnspan.training.distributed import gather
from attnspan.training.lightning_module import TestOutput

_NO_TOKEN = -1
"""The id of no token."""


class Recorder(L.Callback):
    """Makes a record of every test example.

    Args:
        test: the examples.
        target_tokenizer: of the hypotheses.
        run: the columns that say which run it is: ``run_id``, ``arm``, ``data`` and ``seed``.
    """

    def __init__(self, *, test: Dataset, target_tokenizer: Tokenizer, run: dict[str, Any]) -> None:
        self._test = without_pixels(test)
        self._source_lengths = token_counts(test, "source")
        self._target_tokenizer = target_tokenizer
        self._run = run
        self._records: dict[int, Record] = {}
        self.decoded_tokens = 0

    def records(self) -> list[Record]:
        """The records, in the order of the test split."""
        return [self._records[row] for row in sorted(self._records)]

    def decoded(self) -> dict[str, Any]:
        """All that was decoded so far, in plain types."""
        records = {row: asdict(record) for row, record in self._records.items()}
        return {"records": records, "decoded_tokens": self.decoded_tokens}

    def resume(self, decoded: dict[str, Any]) -> None:
        """Take over what an earlier process has ``decoded``.

        Raises:
            TypeError: its records have other columns.
        """
        self._records = {row: Record(**record) for row, record in decoded["records"].items()}
        self.decoded_tokens = decoded["decoded_tokens"]

    @property
    def has_records(self) -> bool:
        """Whether anything was decoded."""
        return bool(self._records)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Turn the batch's tensors into records."""
        assert isinstance(outputs, TestOutput)
        if not batch.examples:
            return  # the other processes have all examples of this batch
        rows = batch.index.tolist()
        examples = self._test[rows]
        columns = zip(
            rows,
            examples["id"],
            examples["source"],
            self._source_lengths[rows].tolist(),
            examples["target"],
            _references(batch),
            batch.oov_words or [()] * len(rows),
            _lists(outputs.hypotheses),
            [None] * len(rows) if outputs.oracle_length is None else _lists(outputs.oracle_length),
            _scores(outputs, batch),
            _attention(outputs.weights, examples, outputs.region_size),
            examples.get(GIVEN, [None] * len(rows)),
            strict=True,
        )
        for (
            row,
            name,
            source,
            source_length,
            target,
            reference,
            oov_words,
            hypothesis,
            oracle,
            scores,
            seen,
            given,
        ) in columns:
            if row not in self._records:  # else decoded before, in a batch that is repeated
                self.decoded_tokens += len(hypothesis) + len(oracle or [])
            self._records[row] = Record(
                **self._run,
                example_id=name,
                source_length=source_length,
                target_length=len(reference),
                source=source,
                hypothesis=self._target_tokenizer.decode(hypothesis, oov_words),
                reference=target,
                hypothesis_length=len(hypothesis),
                given=given,
                scored_length=len(scored_tokens(reference, given or ())),
                **scores,
                **score_hypothesis(hypothesis, reference, given or ()),
                **self._oracle_columns(oracle, reference, oov_words, given or ()),
                **seen,
            )

    def _oracle_columns(
        self,
        hypothesis: list[int] | None,
        reference: list[int],
        oov_words: Sequence[str],
        given: Collection[int],
    ) -> dict[str, Any]:
        """The columns about the hypothesis that was given the reference's length, if there is one."""
        if hypothesis is None:
            return {}
        written, expected = scored_tokens(hypothesis, given), scored_tokens(reference, given)
        return {
            "oracle_hypothesis": self._target_tokenizer.decode(hypothesis, oov_words),
            "oracle_edits": edit_distance(written, expected),
            "oracle_exact_match": written == expected,
        }

    def on_test_end(self, *_: Any) -> None:
        """Merge the records of all processes.

        Raises:
            RuntimeError: two of them had the same example.
        """
        parts = gather((self._records, self.decoded_tokens))
        self._records = {row: record for records, _ in parts for row, record in records.items()}
        if len(self._records) != sum(len(records) for records, _ in parts):
            raise RuntimeError("a test example was decoded by two processes")
        self.decoded_tokens = sum(tokens for _, tokens in parts)


def _references(batch: Batch) -> list[list[int]]:
    """The tokens of each reference, without <eos>.

    A symbol that training never had matches nothing, not even the unknown symbol of a hypothesis.
    """
    rows = batch.target_output.tolist()
    return [[_NO_TOKEN if token == UNK else token for token in row if token not in (EOS, PAD)] for row in rows]


def _lists(found: Hypotheses) -> list[list[int]]:
    """The tokens of each hypothesis."""
    return [row[:length] for row, length in zip(found.tokens.tolist(), found.lengths.tolist(), strict=True)]


def _scores(outputs: TestOutput, batch: Batch) -> Iterator[dict[str, Any]]:
    """The columns of each example that the module has computed."""
    columns = {
        "nll": outputs.nll,
        "target_tokens": (batch.labels != PAD).sum(dim=1),
        "tokens_correct": outputs.correct,
        "exact_match": outputs.exact,
        "truncated": outputs.hypotheses.truncated,
    }
    for row in zip(*(column.tolist() for column in columns.values()), strict=True):
        yield dict(zip(columns, row, strict=True))


def _attention(
    weights: Tensor | None, examples: dict[str, list[Any]], region_size: tuple[int, int] | None = None
) -> Iterator[dict[str, Any]]:
    """The columns about attention of each example, from weights [B, T+1, S] with padding and <eos>."""
    if weights is None:
        yield from ({} for _ in examples["id"])
        return
    for row, padded in enumerate(weights.cpu().double().numpy()):
        example = {name: column[row] for name, column in examples.items()}
        positions, gold = source_positions(example, region_size)
        real = padded[: len(example["target_ids"]), :positions]
        given = example.get(GIVEN) or ()
        yield attention_columns(real, gold, of_regions=region_size is not None, given=given)
