"""Bahdanau's wiring: the previous decoder state is the query, and the context enters the cell."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnspan.errors import check_counts, check_switches
from attnspan.kernels.bahdanau import FusedBahdanau
from attnspan.models.attention.normalisers import BuildNormaliser, Softmax
from attnspan.models.attention.scores import AdditiveScore, BuildScore
from attnspan.models.attention.windows import BuildWindow, GlobalWindow
from attnspan.models.bridge import Bridge, BuildBridge
from attnspan.models.decoders.base import DecoderOutput, Sizes
from attnspan.models.decoders.pointer_generator import BuildPointer
from attnspan.models.decoders.with_attention import AttentionDecoder
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State


class Maxout(nn.Module):
    """t_i = max over pairs of t~_i, t~_i = U_o s_{i-1} + V_o y_{i-1} + C_o c_i  (Bahdanau et al. 2015, A.2.2).

    Args:
        sizes: of the decoder.
        features: l, numbers of t_i, each the larger one of a pair.
    """

    def __init__(self, *, sizes: Sizes, features: int) -> None:
        super().__init__()
        check_counts(features=features)
        self.state = nn.Linear(sizes.hidden, 2 * features, bias=False)  # U_o
        self.token = nn.Linear(sizes.embedding, 2 * features, bias=False)  # V_o
        self.context = nn.Linear(sizes.memory, 2 * features, bias=False)  # C_o
        self.features = features

    def forward(
        self, state: Float[Tensor, "B T H"], embedded: Float[Tensor, "B T E"], context: Float[Tensor, "B T M"]
    ) -> Float[Tensor, "B T l"]:
        """Map s_{i-1}, y_{i-1} and c_i to t_i."""
        pairs = self.state(state) + self.token(embedded) + self.context(context)
        return pairs.unflatten(-1, (self.features, 2)).amax(dim=-1)


class BuildDeepOutput(Protocol):
    """:class:`Maxout` with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, sizes: Sizes) -> Maxout:
        """Build it for these sizes."""


class BahdanauDecoder(AttentionDecoder):
    """Bahdanau et al. 2015, section 3.1.

    c_t = attend(query = s_{t-1});  s_t = RNN([y_{t-1}; c_t], s_{t-1})

    s_t is the top layer's. The output is s_t, or with ``deep_output`` the paper's t_t.

    TensorFlow's ``AttentionWrapper`` and OpenNMT-py use the new state as the query also with Bahdanau's score: that is
    :class:`~attnspan.models.decoders.luong.LuongDecoder` with :class:`~attnspan.models.attention.scores.AdditiveScore`.

    Args, besides those of :class:`~attnspan.models.decoders.with_attention.AttentionDecoder`:
        deep_output: builds the layer between the state and the readout; None for none.
        context_gate: a gating scalar decides how much of the context enters the step: beta_t c_t in place of c_t, with
            beta_t = sigmoid(w . s_{t-1} + b)  (Xu et al. 2015, section 4.2.1).
    """

    kernel = FusedBahdanau
    kernel_scores = (AdditiveScore,)

    def __init__(
        self,
        *,
        sizes: Sizes,
        rnn: BuildRecurrence,
        score: BuildScore,
        fused: bool,
        window: BuildWindow = GlobalWindow,
        normaliser: BuildNormaliser = Softmax,
        heads: int = 1,
        bridge: BuildBridge = Bridge,
        pointer: BuildPointer | None = None,
        deep_output: BuildDeepOutput | None = None,
        context_gate: bool = False,
    ) -> None:
        check_switches(context_gate=context_gate)
        input_size = sizes.embedding + sizes.memory
        super().__init__(
            sizes=sizes,
            rnn=rnn,
            input_size=input_size,
            score=score,
            window=window,
            normaliser=normaliser,
            heads=heads,
            bridge=bridge,
            pointer=pointer,
            fused=fused,
        )
        self.deep_output = None
        if deep_output is not None:
            self.deep_output = deep_output(sizes=sizes)
            self.output_size = self.deep_output.features
        self.gate = nn.Linear(sizes.hidden, 1) if context_gate else None
        self.fused = self.fused and not context_gate

    def step(self, embedded: Float[Tensor, "B 1 E"], state: State, memory: Memory) -> DecoderOutput:
        """Attend with s_{t-1}, then read the token."""
        parts = self.rnn.parts
        previous = state[self.rnn.output_part][:, -1:]  # s_{t-1} of the top layer, [B, 1, H]
        context, weights, choices, attention_state = self.attention(previous, memory, state[parts:])
        if self.gate is not None:
            context = context * torch.sigmoid(self.gate(previous))
        hidden, cells = self.rnn.step((embedded, context), state[:parts])
        output = hidden if self.deep_output is None else self.deep_output(previous, embedded, context)
        return DecoderOutput.of_heads(
            output=output,
            state=(*cells, *attention_state),
            weights=weights,
            choices=choices,
            generation_logit=self.generation_logit(context, hidden, embedded),
        )

    def _unroll_fused(self, embedded: Tensor, memory: Memory) -> DecoderOutput:
        *initial, steps_taken = self.start(memory)
        score = self.attention.score
        assert isinstance(score, AdditiveScore)
        own = (score.query.weight, score.energy.weight.squeeze(0))
        hidden, weights, *cells = self._call_kernel(embedded, memory, *own, initial=(*initial,))
        output, generation_logit = hidden, None
        if self.deep_output is not None or self.copies:
            previous = torch.cat([initial[0], hidden[:, :-1]], dim=1)
            context = weights.to(memory.states.dtype) @ memory.states
            output = hidden if self.deep_output is None else self.deep_output(previous, embedded, context)
            generation_logit = self.generation_logit(context, hidden, embedded)
        final = (hidden[:, -1:], *(part.unsqueeze(1) for part in cells))
        return DecoderOutput(
            output=output,
            state=(*final, steps_taken + embedded.size(1)),
            weights=weights,
            generation_logit=generation_logit,
        )
