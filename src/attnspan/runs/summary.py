"""``summary.json``: what a run came to. It is written last; a run without one is not finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from attnspan.runs.status import PLATEAU

if TYPE_CHECKING:  # with pandas, for which attnspan-status does not wait
    from attnspan.runs.records import Record

AGAINST_EXPLOSION = "a smaller optimizer.lr or trainer.gradient_clip_val"
"""What may help where a loss explodes."""
_RISE = 1.1
"""A loss has risen if it is so many times as high at the end: no two batches have the same loss."""


class Summary(TypedDict):
    """The keys of the file, but for ``best_validation_<selection metric>``. Seconds cover all attempts of the run."""

    run_id: str  # also the name of its directory
    arm: str  # name of its file in conf/decoder
    data: str  # data_name
    seed: int  # the replicate
    study: str | None  # that the run belongs to
    finished: bool  # all else was written before
    command: str  # that reproduces the run
    parameters: int  # trained numbers of the model
    decoder_state: dict[str, int]  # numbers that decoding carries along: fixed, per_source_token, per_target_token
    updates: int  # steps of the optimizer
    training_examples: int  # seen in these updates
    ended_by: str  # plateau, or max_steps: validation was still improving, or was not watched
    plateau_update: int | None  # up to the last gain on validation before the learning rate decayed
    decay_update: int | None  # up to the decay of the learning rate
    last_doubling_gain: float | None  # share by which the second half of the updates lowered the validation loss
    uniform_loss: float  # of equal probabilities for all symbols of the target vocabulary, nats per token
    first_training_loss: float | None  # of the first update, before it
    final_training_loss: float | None  # of the last update before the last validation
    final_validation_loss: float | None  # of the last validation
    best_update: int  # of the checkpoint that was tested
    selection_metric: str  # that chose it
    best_validation_loss: float  # teacher-forced, in nats per target token
    test: dict[str, float]  # scores over the whole test split, see total_scores
    references_over_limit: int  # test references longer than a hypothesis may become
    length_limit: dict[str, float]  # ratio and margin: a hypothesis has at most ratio * source tokens + margin tokens
    length: str  # by which the results are given: source, target, source-multiple or target-multiple
    dropped: dict[str, int]  # split -> pairs longer than data.limits
    skipped: dict[str, int]  # split -> unusable rows
    data_files: dict[str, list[str]]  # split -> its files, where the corpus found them itself
    data_remarks: list[str]  # what is legal and yet odd about the files
    unknown: dict[str, dict[str, float]]  # split -> side -> share of tokens that the vocabulary lacks
    overlap: int  # test pairs that training has, too
    examples: dict[str, int]  # split -> examples
    training_lengths: list[int]  # shortest and longest source in training, in tokens
    training_target_lengths: list[int]  # shortest and longest target in training, in tokens without <eos>
    training_target_ratio: float  # the largest ratio of target tokens to source tokens of a training pair
    data_fingerprint: str  # hash of all splits and tokenizers
    test_fingerprint: str  # hash of the test split, by which runs are compared
    wall_seconds: float  # from start to end
    train_seconds: float  # without validation
    validation_seconds: float  # all validations
    test_seconds: float  # decoding the test split
    tokens_per_second: float  # target tokens, in training
    decode_tokens_per_second: float  # tokens of hypotheses, in the test
    peak_memory_mb: float  # of the process, or of the GPU
    threads: int  # of the CPU
    device: str  # cpu, or the name of the GPU
    devices: int  # processes of the run
    kernels: str  # numba or torch
    machine: dict[str, Any]  # processor, cores, platform
    versions: dict[str, str]  # of Python and the packages
    git_commit: str | None  # with + if files differed from it
    code: str | None  # hash of the source files
    finished_at: str  # ISO 8601, UTC
    files: dict[str, dict[str, Any]]  # size and sha256 of each result


def total_scores(records: Sequence[Record]) -> dict[str, float]:
    """Scores over the whole test split, for a first look; a study computes its own from the records."""
    references = sum(record.scored_length for record in records)
    tokens = sum(record.target_tokens for record in records)
    scores = {
        "error_rate": sum(record.edits for record in records) / references,
        "exact_match": sum(record.exact_match for record in records) / len(records),
        "teacher_forced_nll": sum(record.nll for record in records) / tokens,
        "teacher_forced_accuracy": sum(record.tokens_correct for record in records) / tokens,
    }
    edits, matches = ([getattr(record, f"oracle_{name}") for record in records] for name in ("edits", "exact_match"))
    if None not in edits:  # the length of the reference was given in a second decoding
        scores |= {"oracle_error_rate": sum(edits) / references, "oracle_exact_match": sum(matches) / len(records)}
    return scores


def ends_at_chance(summary: Mapping[str, Any]) -> bool:
    """Whether the model is no better at the end of its training than equal probabilities for all symbols.

    Two losses must say so, that of the last update and that of the last validation: the former is low where validation
    is only unlike training. And training must have gone wrong, not just begun: its loss has risen, or it ended at a
    plateau. A run of before these losses were kept has no such end.
    """
    names = ("first_training", "final_training", "final_validation")
    losses = [float(loss) for name in names if (loss := summary.get(f"{name}_loss")) is not None]
    if len(losses) < len(names):
        return False
    first, *last = losses
    rose = min(last) >= _RISE * first
    return bool(min(last) >= summary["uniform_loss"] and (rose or summary["ended_by"] == PLATEAU))


def describe_end(summary: Mapping[str, Any]) -> str:
    """A line for people about a run that ends at chance, as where its loss explodes; empty for all others."""
    if not ends_at_chance(summary):
        return ""
    best = summary["best_update"]
    tested = f"; the test is of update {best:,}, where validation was best" if best < summary["updates"] else ""
    return (
        f"no better than chance: the loss at the end is {summary['final_training_loss']:.4g} in training and "
        f"{summary['final_validation_loss']:.4g} on validation, no lower than the {summary['uniform_loss']:.4g} of "
        f"equal probabilities for all symbols{tested}; {AGAINST_EXPLOSION} may help"
    )


def describe_scores(test: Mapping[str, float]) -> str:
    """The scores of a test split in a line for people."""
    words = f"error rate {test['error_rate']:.4f}, exact match {test['exact_match']:.4f} (free-running)"
    if "oracle_error_rate" not in test:
        return words
    oracle = f"{test['oracle_error_rate']:.4f}, {test['oracle_exact_match']:.4f}"
    return f"{words}; {oracle} with the reference's length given"
