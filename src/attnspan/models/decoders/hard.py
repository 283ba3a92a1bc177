"""Hard attention: each step looks at one position, and all ways to have looked are summed over exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.kernels.emissions import Emissions
from attnspan.models.attention.entmax import in_float32
from attnspan.models.attention.transitions import IMPOSSIBLE, BuildTransition
from attnspan.models.bridge import Bridge, BuildBridge
from attnspan.models.decoders.base import DecoderOutput, Readout, RecurrentDecoder, Sizes
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State


class HardAttentionDecoder(RecurrentDecoder):
    """Wu and Cotterell 2019: the position a_t of a step is a hidden variable of a Markov chain.

    s_t = RNN(y_{t-1}, s_{t-1});  p(y_t | a_t = j) = softmax(W_o tanh(W_c [h_j; s_t]))

    p(y_t | y_1 ... y_{t-1}) = sum_j p(a_t = j | y_1 ... y_{t-1}) p(y_t | a_t = j)

    p(a_t | y_1 ... y_{t-1}), the prior, is the transition applied to p(a_{t-1} | y_1 ... y_{t-1}), the posterior, which
    is proportional to the prior of the step before times p(y_{t-1} | a_{t-1}). The product over t is the sum over all
    sequences of positions (the forward algorithm), so that cross-entropy trains exactly its logarithm. Before the first
    step the position is the first one. It is Luong's wiring with one h_j in place of their mean.

    The weights are the prior. The state is that of the cells and the logarithm of the prior, [B, S]. Each step reads
    out B S distributions: that is what it costs. Training keeps none of them, and computes them again in the backward
    pass, so that memory does not grow with T S V.

    Args, besides the sizes:
        transition: builds p(a_t | a_{t-1}).
    """

    def __init__(
        self, *, sizes: Sizes, rnn: BuildRecurrence, transition: BuildTransition, bridge: BuildBridge = Bridge
    ) -> None:
        super().__init__(sizes=sizes, rnn=rnn, input_size=sizes.embedding, bridge=bridge)
        self.transition = transition(query_size=sizes.hidden, memory_size=sizes.memory)
        self.combine = nn.Linear(sizes.memory + sizes.hidden, sizes.hidden, bias=False)  # W_c
        self.memory_size = sizes.memory

    def prepare(self, memory: Memory) -> Memory:
        """Compute the transition's keys, and the share of each h_j in the output."""
        values = F.linear(memory.states, self.combine.weight[:, : self.memory_size])
        return replace(memory, keys=self.transition.keys(memory.states), values=values)

    def start(self, memory: Memory) -> State:
        """The cells' initial state, and the first position as that of step 0."""
        return *super().start(memory), self._at_the_first(memory)

    def step(self, embedded: Float[Tensor, "B T E"], state: State, memory: Memory) -> DecoderOutput:
        """The cells alone, over any number of tokens; :meth:`read` and :meth:`read_target` add the positions."""
        hidden, cells = self.rnn(embedded, state[: self.rnn.parts])
        return DecoderOutput(output=hidden, state=cells, weights=None)

    def read(
        self,
        tokens: Int[Tensor, "B 1"],
        embedded: Float[Tensor, "B 1 E"],
        state: State,
        memory: Memory,
        readout: Readout,
    ) -> tuple[Float[Tensor, "B 1 V"], DecoderOutput]:
        """The token says where the step before looked: then this step. <bos> says nothing, for there is one place."""
        prior, before = state[-1], state[self.rnn.output_part][:, -1]  # s_{t-1} of the top layer
        emit = self._emissions(memory, readout)
        _, seen = emit(self._share(before), prior, tokens[:, 0])
        decoded = self.step(embedded, state, memory)
        prior = self._prior(prior + seen, [part[:, 0] for part in self._moves(decoded.output, memory)])
        log_p, _ = emit(self._share(decoded.output[:, 0]), prior, tokens[:, 0])
        weights = prior.exp().unsqueeze(1)
        return log_p.unsqueeze(1), replace(decoded, state=(*decoded.state, prior), weights=weights)

    def read_target(
        self, tokens: Int[Tensor, "B T"], embedded: Float[Tensor, "B T E"], memory: Memory, readout: Readout
    ) -> tuple[Float[Tensor, "B T V"], DecoderOutput]:
        """Cells and moves of all steps at once, then position after position."""
        decoded = self.unroll(embedded, memory)
        following = tokens.roll(-1, dims=1)  # of the last step none is known, and none needed
        # By unbind, for the gradient of one index is a tensor of all steps.
        shares, moves = self._share(decoded.output).unbind(1), self._moves(decoded.output, memory)
        emit, joint, log_ps, priors = self._emissions(memory, readout), self._at_the_first(memory), [], []
        for share, token, *move in zip(shares, following.unbind(1), *(part.unbind(1) for part in moves), strict=True):
            prior = self._prior(joint, move)
            log_p, seen = emit(share, prior, token)
            joint = prior + seen
            log_ps.append(log_p)
            priors.append(prior)
        weights = torch.stack(priors, dim=1).exp()
        return torch.stack(log_ps, dim=1), replace(decoded, state=(*decoded.state, priors[-1]), weights=weights)

    def unroll(self, embedded: Float[Tensor, "B T E"], memory: Memory) -> DecoderOutput:
        """The cells alone, over the whole target."""
        return self.step(embedded, self.start(memory), memory)

    def _at_the_first(self, memory: Memory) -> Float[Tensor, "B S"]:
        log_p = in_float32(torch.full_like(memory.states[..., 0], IMPOSSIBLE))
        log_p[:, 0] = 0.0
        return log_p

    def _share(self, hidden: Float[Tensor, "*rows H"]) -> Float[Tensor, "*rows H"]:
        """What s_t adds to W_c [h_j; s_t]."""
        return F.linear(hidden, self.combine.weight[:, self.memory_size :])

    def _moves(self, hidden: Float[Tensor, "B T H"], memory: Memory) -> State:
        assert memory.keys is not None, "the memory was not prepared"
        return self.transition.moves(hidden, memory.keys, memory.mask)

    def _prior(self, joint: Float[Tensor, "B S"], moves: Sequence[Tensor]) -> Float[Tensor, "B S"]:
        """log p(a_t | y_1 ... y_{t-1}), from the logarithm of the posterior's numerator."""
        return self.transition.prior(joint.log_softmax(dim=-1), *moves)

    @staticmethod
    def _emissions(memory: Memory, readout: Readout) -> Emissions:
        assert memory.values is not None, "the memory was not prepared"
        dropout = readout.dropout.p if readout.dropout.training else 0.0
        return Emissions(memory.values, readout.linear.weight, readout.linear.bias, dropout=dropout)
