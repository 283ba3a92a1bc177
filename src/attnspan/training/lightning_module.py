"""The one LightningModule. It names no arm: what differs between arms stands in the model that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import lightning as L
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from attnspan.config.instantiate import assemble_model, build, build_decoding, check_decoding, check_losses_of_attention
from attnspan.config.schema import SEQUENCE_ERROR_RATE
from attnspan.data.pipeline.batches import Batch
from attnspan.data.pipeline.prepare import PreparedData
from attnspan.data.pipeline.reachable import limit_of_training
from attnspan.data.tokenizer import EOS, PAD, UNK
from attnspan.errors import NotFiniteError
from attnspan.evaluation.loaded_run import SPECIALS
from attnspan.models.attention.coverage_loss import coverage_loss
from attnspan.models.decoding.strategy import DecodingStrategy, Hypotheses
from attnspan.models.seq2seq import Seq2Seq
from attnspan.runs.summary import AGAINST_EXPLOSION
from attnspan.training.mean_metric import Mean
from attnspan.training.objectives.cross_entropy import cross_entropy
from attnspan.training.objectives.guidance import Guidance
from attnspan.training.objectives.reinforce import Reinforce
from attnspan.training.objectives.scheduled_sampling import ScheduledSampling


@dataclass(frozen=True, kw_only=True)
class ValidationOutput:
    """What a validation batch came to, teacher-forced.

    Attributes:
        nll: [B] negative log-likelihood in nats, of the reference's tokens that are not given, and <eos>, if training
            has it.
        correct: [B] tokens of these that the model ranks first.
    """

    nll: Tensor
    correct: Tensor


@dataclass(frozen=True, kw_only=True)
class TestOutput(ValidationOutput):
    """What a test batch came to; :class:`attnspan.training.callbacks.recorder.Recorder` makes records of it.

    Attributes:
        weights: [B, T+1, S] teacher-forced attention, the last step for <eos>; None where the arm has none.
        exact: [B] bool, the hypothesis is the reference, token by token.
        hypotheses: of free-running decoding.
        oracle_length: of a second decoding in which the lengths of the references are given; None if nobody asks.
        region_size: height and width in pixels of a source position; None where it is a token.
    """

    weights: Tensor | None
    exact: Tensor
    hypotheses: Hypotheses
    oracle_length: Hypotheses | None
    region_size: tuple[int, int] | None


class Seq2SeqModule(L.LightningModule):
    """Trains with teacher forcing, validates on the loss and, if asked, by decoding, and tests by decoding.

    Args:
        model: the arm.
        decoding: finds hypotheses.
        optimizer: builds the optimizer of the parameters.
        schedule: builds the learning-rate schedule, which advances after every update.
        label_smoothing: share of the target probability that is spread over the vocabulary, in training only.
        coverage_loss: weight of :func:`attnspan.models.attention.coverage_loss.coverage_loss`, in training only.
        decode_in_validation: also count the hypotheses that are not their reference; costs decoding the split.
        oracle_length: decode the test a second time, with the lengths of the references given.
        guidance: a loss on the attention weights, in training only; None for none.
        scheduled_sampling: replaces tokens of the reference that training reads by the model's; None for none.
    """

    def __init__(
        self,
        *,
        model: Seq2Seq,
        decoding: DecodingStrategy,
        optimizer: Callable[[Iterable[Tensor]], Optimizer],
        schedule: Callable[[Optimizer], LRScheduler],
        label_smoothing: float,
        decode_in_validation: bool,
        oracle_length: bool = False,
        coverage_loss: float = 0.0,
        guidance: Guidance | None = None,
        scheduled_sampling: ScheduledSampling | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.decoding = decoding
        self.label_smoothing = label_smoothing
        self.coverage_loss = coverage_loss
        self.guidance = guidance
        self.scheduled_sampling = scheduled_sampling
        self.reinforce = Reinforce.of(model)
        self.decode_in_validation = decode_in_validation
        self.oracle_length = oracle_length
        self._build_optimizer = optimizer
        self._build_schedule = schedule
        self.validation_loss = Mean()
        self.validation_accuracy = Mean()
        self.validation_errors = Mean()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and its schedule."""
        optimizer = self._build_optimizer(self.parameters())
        schedule = self._build_schedule(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Batch) -> Tensor:
        """Loss in nats per target token of the whole batch; where processes share it, their mean is the loss."""
        memory, target_input = self.model.encode(batch.source, batch.source_lengths), batch.target_input
        if self.scheduled_sampling is not None:
            target_input = self.scheduled_sampling(
                self.model, memory, target_input, update=self.global_step, given=batch.given
            )
        logits, decoded = self.model.unroll(target_input, memory)
        weights = decoded.weights
        total = cross_entropy(
            logits,
            batch.labels,
            label_smoothing=self.label_smoothing,
            vocabulary_size=self.model.readout.out_features,
        )
        if self.coverage_loss and weights is not None:
            total = total + self.coverage_loss * coverage_loss(weights, batch.target_output != PAD)
        if self.guidance is not None and weights is not None:
            total = total + self.guidance(weights, batch, memory.mask)
        if self.reinforce is not None:
            total = total + self.reinforce(logits, decoded, batch.labels)
        loss = total * batch.ranks / batch.whole_tokens
        self.log("train/loss", loss.detach(), batch_size=batch.whole_tokens, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch) -> ValidationOutput:  # type: ignore[override]
        """Teacher-forced loss and accuracy, by token over the whole split; the sequence error rate, if asked for."""
        nll, correct, _ = self._teacher_forced(batch)
        self.validation_loss.update(nll.sum(), batch.target_tokens)
        self.validation_accuracy.update(correct.sum(), batch.target_tokens)
        size = len(batch.index)
        self.log("validation/loss", self.validation_loss, on_epoch=True, batch_size=size)
        self.log("validation/teacher_forced_accuracy", self.validation_accuracy, on_epoch=True, batch_size=size)
        if self.decode_in_validation:
            exact = is_exact(self._decode(batch), batch.target_output, batch.given)[: batch.examples]
            self.validation_errors.update((~exact).sum(), batch.examples)
            self.log("validation/sequence_error_rate", self.validation_errors, on_epoch=True, batch_size=size)
        return ValidationOutput(nll=nll, correct=correct)

    def test_step(self, batch: Batch) -> TestOutput:  # type: ignore[override]
        """Score the references, decode without them, and if asked for with their lengths."""
        nll, correct, weights = self._teacher_forced(batch)
        hypotheses = self._decode(batch)
        lengths = reference_lengths(batch.target_output).cpu() if self.oracle_length else None
        return TestOutput(
            nll=nll,
            correct=correct,
            weights=weights,
            exact=is_exact(hypotheses, batch.target_output, batch.given),
            hypotheses=hypotheses,
            oracle_length=None if lengths is None else self._decode(batch, lengths),
            region_size=self.model.encoder.region_size,
        )

    def decode(
        self,
        source: Tensor,
        lengths: Tensor,
        *,
        given_lengths: Tensor | None = None,
        given_tokens: Tensor | None = None,
    ) -> Hypotheses:
        """Decode sources [B, S] of these ``lengths`` [B], as :class:`DecodingStrategy` does.

        Raises:
            NotFiniteError: the model gives no finite scores.
        """
        try:
            return self.decoding(
                self.model,
                source,
                lengths,
                specials=SPECIALS,
                given_lengths=given_lengths,
                given_tokens=given_tokens,
            )
        except NotFiniteError as error:
            raise NotFiniteError(f"{error}; {AGAINST_EXPLOSION} may help") from error

    def _decode(self, batch: Batch, given_lengths: Tensor | None = None) -> Hypotheses:
        return self.decode(
            batch.source, batch.source_lengths, given_lengths=given_lengths, given_tokens=batch.given_tokens
        )

    def _teacher_forced(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Per example [B]: negative log-likelihood in nats, and tokens ranked first; with the attention weights."""
        logits, weights = self.model(batch.source, batch.source_lengths, batch.target_input)
        logits = logits.float()
        target, real = batch.labels, batch.labels != PAD
        # Flat, because of the two forms of this loss only this one has a deterministic kernel on a GPU.
        nll = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD, reduction="none").view_as(real)
        correct = (logits.argmax(dim=-1) == target) & real
        return nll.double().sum(dim=1), correct.sum(dim=1), weights


def reference_lengths(target_output: Tensor) -> Tensor:
    """Tokens of each reference, without <eos>: [B], on the device of ``target_output`` [B, T]."""
    return ((target_output != PAD) & (target_output != EOS)).sum(dim=1)


def is_exact(hypotheses: Hypotheses, target_output: Tensor, given: Tensor | None = None) -> Tensor:
    """Whether each hypothesis is its reference [B, T] (with <eos>), token by token, and not truncated: [B] bool.

    A reference with a symbol that training never had cannot be matched: the unknown symbol does not equal itself. It
    does where the token was ``given`` [B, T].
    """
    unknown = target_output == UNK if given is None else (target_output == UNK) & ~given
    reference = target_output.masked_fill(target_output == EOS, PAD).masked_fill(unknown, -1)
    width = max(hypotheses.tokens.size(1), reference.size(1))
    found, expected = (F.pad(ids, (0, width - ids.size(1)), value=PAD) for ids in (hypotheses.tokens, reference))
    return (found == expected).all(dim=1) & ~hypotheses.truncated


def assemble_module(config: dict[str, Any], prepared: PreparedData) -> Seq2SeqModule:
    """Build the model, and the module that trains and tests it.

    Raises:
        InputError: the config's sizes or settings do not fit each other.
    """
    model = assemble_model(
        config,
        source_vocabulary_size=prepared.source_tokenizer.vocabulary_size,
        target_vocabulary_size=len(prepared.target_tokenizer),
    )
    model.encoder.load_pretrained()
    parts = {key: build(config, key) for key in ("optimizer", "schedule")}
    if config.get("guidance"):
        parts["guidance"] = build(config, "guidance")(train=prepared.train)
    if config.get("scheduled_sampling"):
        parts["scheduled_sampling"] = build(config, "scheduled_sampling")
    return make_module(config, model, decoding=build_decoding(config, limit=limit_of_training(prepared)), **parts)


def make_module(
    config: dict[str, Any],
    model: Seq2Seq,
    *,
    decoding: DecodingStrategy,
    optimizer: Callable[[Iterable[Tensor]], Optimizer],
    schedule: Callable[[Optimizer], LRScheduler],
    guidance: Guidance | None = None,
    scheduled_sampling: ScheduledSampling | None = None,
) -> Seq2SeqModule:
    """Make the module that trains and tests ``model``. All but ``model`` and ``decoding`` is used where it trains only.

    Raises:
        InputError: a setting is refused.
    """
    check_decoding(decoding, model)
    check_losses_of_attention(config, model)
    return Seq2SeqModule(
        model=model,
        decoding=decoding,
        optimizer=optimizer,
        schedule=schedule,
        label_smoothing=config["label_smoothing"],
        decode_in_validation=config["selection_metric"] == SEQUENCE_ERROR_RATE,
        oracle_length=config["oracle_length"],
        coverage_loss=config.get("coverage_loss", 0.0),
        guidance=guidance,
        scheduled_sampling=scheduled_sampling,
    )
