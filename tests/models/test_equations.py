"""Every arm against a slow loop in float64, written from the papers' equations and not from the code.

:class:`Paper` has a method for each idea. It reads one example at a time, one vector after another, and takes nothing
from the model but its weights; which ideas an arm is made of stands in ``ARMS_AS_PUBLISHED``, and how many layers,
which cells and the like in the run's config. The transformer has loops of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import ARMS, Compose
from tests.models.arms import HARD, MECHANISMS, PARALLEL_CELLS, WIRINGS, pad, small, small_config, with_target_ids
from tests.models.test_normalisers import EQUATIONS

pytestmark = pytest.mark.usefixtures("float64")

ARMS_AS_PUBLISHED: dict[str, tuple[str, str, str]] = {  # wiring, score, window
    "bahdanau": ("bahdanau", "additive", "everywhere"),
    "bahdanau_2015": ("bahdanau", "additive", "everywhere"),
    "bahdanau_gated": ("bahdanau", "additive", "everywhere"),
    "bahdanau_pointer": ("bahdanau", "additive", "everywhere"),
    "bahdanau_windowed": ("bahdanau", "additive", "around_median"),
    "coverage": ("bahdanau", "additive_with_coverage", "everywhere"),
    "luong_2015": ("luong", "general", "everywhere"),
    "luong_concat": ("luong", "concat", "everywhere"),
    "luong_dot": ("luong", "dot", "everywhere"),
    "luong_general": ("luong", "general", "everywhere"),
    "luong_general_feeding": ("luong", "general", "everywhere"),
    "luong_local_m": ("luong", "general", "local_m"),
    "luong_local_p": ("luong", "general", "local_p"),
    "luong_location": ("luong", "location", "everywhere"),
    "luong_multihead": ("luong", "scaled_dot", "everywhere"),
    "luong_pointer": ("luong", "general", "everywhere"),
    "luong_scaled_dot": ("luong", "scaled_dot", "everywhere"),
    "mocha": ("bahdanau", "normalised_additive", "chunkwise"),
    "monotonic": ("bahdanau", "normalised_additive", "monotonic"),
    "plain": ("plain", "", ""),
    "plain_every_step": ("plain_every_step", "", ""),
    "plain_wide": ("plain_wide", "", ""),
}

State = tuple[Tensor, ...]
"""Of one layer: (h,) for GRU, (h, c) for LSTM."""


@dataclass(kw_only=True)
class Now:
    """What step t depends on."""

    t: int
    layers: list[State]
    """s_{t-1}, from the bottom to the top."""
    states: list[Tensor]
    """h_1 ... h_S."""
    final: Tensor
    """f, the encoder's final state."""
    fed: Tensor
    """h~_{t-1}, 0 at first."""
    coverage: list[Tensor]
    """The sum of each position's weights up to step t - 1."""
    stopped: int = 1
    """Where a monotonic attention stopped; S + 1 if it has run off the end."""
    heads: list[Now]
    """The same for each head, where there are several."""
    weights: list[Tensor]
    """Of the step before; a step puts its own here."""


class Paper:
    """One method an idea."""

    def __init__(self, model: Seq2Seq, config: dict[str, Any], axes: tuple[str, str, str]) -> None:
        self.model, self.config, self.decoder = model, config, model.decoder
        wiring, score, window = axes
        self.step: Callable[[Tensor, Now], Tensor] = getattr(self, wiring)
        self.scores: Callable[[Tensor, Now], list[Tensor]] = getattr(self, score, None)
        self.window: Callable[[list[Tensor], Tensor, Now], list[Tensor]] = getattr(self, window, None)

    # Cells

    def gru(self, x: Tensor, state: State, weights: list[Tensor]) -> State:
        """Cho et al. 2014, in the form that torch documents: the reset gate acts on W_hn h + b_hn."""
        (h,), (w_i, w_h, b_i, b_h) = state, weights
        i_r, i_z, i_n = (w_i @ x + b_i).chunk(3)
        g_r, g_z, g_n = (w_h @ h + b_h).chunk(3)
        r, z = sigmoid(i_r + g_r), sigmoid(i_z + g_z)
        return ((1 - z) * torch.tanh(i_n + r * g_n) + z * h,)

    def lstm(self, x: Tensor, state: State, weights: list[Tensor]) -> State:
        """Hochreiter and Schmidhuber 1997 with forget gates, without peepholes."""
        (h, c), (w_i, w_h, b_i, b_h) = state, weights
        i, f, g, o = (w_i @ x + b_i + w_h @ h + b_h).chunk(4)
        c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
        return sigmoid(o) * torch.tanh(c), c

    @property
    def is_lstm(self) -> bool:
        return self.config["rnn"]["cell"]["_target_"] == "torch.nn.LSTM"

    def stack(self, x: Tensor, layers: list[State], cells: nn.Module) -> list[State]:
        """Each layer reads the h of the one below it."""
        after = []
        for state, weights in zip(layers, cells.all_weights, strict=True):
            after.append((self.lstm if self.is_lstm else self.gru)(x, state, weights))
            x = after[-1][0]
        return after

    # Encoder and bridge

    def read(self, xs: list[Tensor], cells: nn.Module) -> list[list[State]]:
        """All layers after each x, from zeros."""
        zero = torch.zeros(cells.hidden_size)
        after = [[(zero, zero) if self.is_lstm else (zero,)] * cells.num_layers]
        for x in xs:
            after.append(self.stack(x, after[-1], cells))
        return after[1:]

    def encode(self, source: list[int]) -> tuple[list[Tensor], list[Tensor]]:
        """h_1 ... h_S, and the final state: h, and where an LSTM hands on its cells c."""
        xs = [self.model.source_embedding.weight[i] for i in source]
        unidirectional = self.config["encoder"]["_target_"].endswith("UnidirectionalEncoder")
        return self.one_direction(xs) if unidirectional else self.two_directions(xs)

    def two_directions(self, xs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Bahdanau et al. 2015, A.2.1: h_j = [h_j forward; h_j backward], in every layer."""
        encoder, final = self.model.encoder, []
        assert len(encoder.forwards) == self.config["encoder"]["layers"]
        for forwards, backwards in zip(encoder.forwards, encoder.backwards, strict=True):
            forward_states = [after[0][0] for after in self.read(xs, forwards.cells)]
            backward_states = [after[0][0] for after in self.read(xs[::-1], backwards.cells)][::-1]
            final += self.final_of(forward_states[-1], backward_states[0])
            xs = [torch.cat([f, b]) for f, b in zip(forward_states, backward_states, strict=True)]
        return xs, [torch.cat(final)]

    def final_of(self, forward: Tensor, backward: Tensor) -> list[Tensor]:
        """Both directions' last states, or as in A.2.2 the backward one's, which has read the first token last."""
        return [backward] if self.config["encoder"]["final_state"] == "backward" else [forward, backward]

    def one_direction(self, xs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Sutskever et al. 2014: the source may be read from its end; h_j stays the state at token j."""
        turn = -1 if self.config["encoder"]["reverse"] else 1
        after = self.read(xs[::turn], self.model.encoder.rnn.cells)
        return [layers[-1][0] for layers in after][::turn], [torch.cat(part) for part in zip(*after[-1], strict=True)]

    def bridge(self, final_state: list[Tensor]) -> list[State]:
        """The initial state of every layer, from the final state; from h where there is no c."""
        copied = "CopyBridge" in str(self.config["decoder"].get("bridge"))
        parts = []
        for part in range(2 if self.is_lstm else 1):
            final = final_state[part] if part < len(final_state) else final_state[0]
            parts.append(final if copied else self.projected(final, self.decoder.bridge.projections[part]))
        return list(zip(*(part.chunk(self.config["rnn"]["layers"]) for part in parts), strict=True))

    def projected(self, final: Tensor, projection: nn.Linear) -> Tensor:
        """Bahdanau et al. 2015, A.2.2: s_0 = tanh(W_s f)."""
        return torch.tanh(projection.weight @ final + projection.bias)

    # Scores

    def additive(self, s: Tensor, now: Now) -> list[Tensor]:
        """Bahdanau et al. 2015, A.1.2: v_a^T tanh(W_a s_{i-1} + U_a h_j)."""
        score = self.decoder.attention.score
        w_a, u_a, v_a = score.query.weight, score.key.weight, score.energy.weight[0]
        return [v_a @ torch.tanh(w_a @ s + u_a @ h) for h in now.states]

    def normalised_additive(self, s: Tensor, now: Now) -> list[Tensor]:
        """Raffel et al. 2017, eq. 16: g v^T / |v| tanh(W s + U h + b)."""
        score = self.decoder.attention.score
        w, u, v = score.query.weight, score.key.weight, score.energy.weight[0]
        v = score.length * v / torch.sqrt(total([x * x for x in v]))
        return [v @ torch.tanh(w @ s + u @ h + score.bias) for h in now.states]

    def additive_with_coverage(self, s: Tensor, now: Now) -> list[Tensor]:
        """Tu et al. 2016: v_a^T tanh(W_a s_{i-1} + U_a h_j + V_a C_{i-1,j})."""
        score = self.decoder.attention.score
        w_a, u_a, v_a = score.query.weight, score.key.weight, score.energy.weight[0]
        share = score.coverage.weight[:, 0]
        had = zip(now.states, now.coverage, strict=True)
        return [v_a @ torch.tanh(w_a @ s + u_a @ h + share * covered) for h, covered in had]

    def concat(self, h_t: Tensor, now: Now) -> list[Tensor]:
        """Luong et al. 2015: v_a^T tanh(W_a [h_t; h_s]), with one W_a."""
        score = self.decoder.attention.score
        w_a = torch.cat([score.query.weight, score.key.weight], dim=1)
        return [score.energy.weight[0] @ torch.tanh(w_a @ torch.cat([h_t, h_s])) for h_s in now.states]

    def dot(self, h_t: Tensor, now: Now) -> list[Tensor]:
        """h_t^T h_s."""
        return [total([a * b for a, b in zip(h_t, h_s, strict=True)]) for h_s in now.states]

    def scaled_dot(self, h_t: Tensor, now: Now) -> list[Tensor]:
        """q k^T / sqrt(d_k)."""
        return [product / math.sqrt(len(h_t)) for product in self.dot(h_t, now)]

    def general(self, h_t: Tensor, now: Now) -> list[Tensor]:
        """h_t^T W_a h_s."""
        return [h_t @ (self.decoder.attention.score.key.weight @ h_s) for h_s in now.states]

    def location(self, h_t: Tensor, now: Now) -> list[Tensor]:
        """Eq. 8: a_t = softmax(W_a h_t); its top part for short sentences, and no row near the end of long ones."""
        return list(self.decoder.attention.score.position.weight @ h_t)[: len(now.states)]

    # Windows; positions s and steps t count from 1

    def everywhere(self, e: list[Tensor], query: Tensor, now: Now) -> list[Tensor]:
        """Eq. 7 of Luong et al. 2015, eq. 6 of Bahdanau et al. 2015."""
        return self.align(e, list(range(1, len(e) + 1)), now)

    def local_m(self, e: list[Tensor], query: Tensor, now: Now) -> list[Tensor]:
        """Luong et al. 2015, section 3.2: p_t = t, and at the last position where the source has ended."""
        S, D = len(now.states), self.config["decoder"]["window"]["half_width"]
        p = min(now.t, S)
        return self.align(e, [s for s in range(1, S + 1) if p - D <= s <= p + D], now)

    def local_p(self, e: list[Tensor], query: Tensor, now: Now) -> list[Tensor]:
        """Eq. 9: p_t = S sigmoid(v_p^T tanh(W_p h_t)).  Eq. 10: align(h_t, h_s) exp(-(s - p_t)^2 / 2 sigma^2)."""
        S, D = len(now.states), self.config["decoder"]["window"]["half_width"]
        p, sigma = self.predicted(query, S), D / 2
        aligned = self.align(e, [s for s in range(1, S + 1) if p - D <= s <= p + D], now)
        return [a * torch.exp(-((s - p) ** 2) / (2 * sigma**2)) for s, a in enumerate(aligned, start=1)]

    def predicted(self, h_t: Tensor, S: int) -> Tensor:
        """Eq. 9."""
        window = self.decoder.attention.window
        return S * sigmoid(window.position.weight[0] @ torch.tanh(window.hidden.weight @ h_t))

    def around_median(self, e: list[Tensor], query: Tensor, now: Now) -> list[Tensor]:
        """Chorowski et al. 2015, section 2.3: p_t - w ... p_t + w - 1, p_t the median of the previous weights."""
        S, w = len(now.states), self.config["decoder"]["window"]["half_width"]
        p = self.median(now)
        return self.align(e, [s for s in range(1, S + 1) if p - w <= s <= p + w - 1], now)

    def median(self, now: Now) -> int:
        """The first position up to which half of the previous weights lie; 1 at first."""
        p = 1
        while now.t > 1 and total(now.weights[:p]) < total(now.weights) / 2:
            p += 1
        return p

    def monotonic(self, e: list[Tensor], query: Tensor, now: Now) -> list[Tensor]:
        """Raffel et al. 2017, algorithm 1: from where it last stopped on, stop at the first position with e + r > 0."""
        S, r = len(now.states), self.decoder.attention.window.offset
        while now.stopped <= S and not e[now.stopped - 1] + r > 0:
            now.stopped += 1
        return [torch.tensor(float(j == now.stopped)) for j in range(1, S + 1)]

    def chunkwise(self, e: list[Tensor], query: Tensor, now: Now) -> list[Tensor]:
        """Chiu and Raffel 2018: a softmax over positions k - w + 1 ... k, where it stops at k."""
        S, part = len(now.states), self.decoder.attention.window.score
        if not any(self.monotonic(e, query, now)):
            return [torch.zeros(())] * S
        k, w = now.stopped, self.config["decoder"]["window"]["width"]
        v = part.energy.weight[0]
        u = [v @ torch.tanh(part.query.weight @ query + part.key.weight @ h) for h in now.states]
        return align(u, [j for j in range(k - w + 1, k + 1) if j >= 1], S)

    def align(self, e: list[Tensor], inside: list[int], now: Now) -> list[Tensor]:
        """Eq. 7 of Luong et al. 2015, eq. 6 of Bahdanau et al. 2015, or another normaliser, of the positions inside."""
        inside = [s for s in inside if s <= len(e)]  # some scores know fewer positions
        weights = self.normalise(torch.stack([e[s - 1] for s in inside]))
        at = dict(zip(inside, weights, strict=True))
        return [at.get(s, torch.zeros(())) for s in range(1, len(now.states) + 1)]

    def normalise(self, z: Tensor) -> Tensor:
        """One of the equations of test_normalisers.py."""
        part = self.decoder.attention.normaliser
        return EQUATIONS[type(part)](z, self.asked, part, self.head)

    # Wirings: from y_{t-1} to the output; the state goes from ``now`` into ``now``

    def attend(self, query: Tensor, now: Now) -> Tensor:
        """c_t = sum_s a_t(s) h_s."""
        self.asked, self.head = query, 0
        return self.attend_with_heads(query, now) if now.heads else self.look(query, now)

    def attend_with_heads(self, query: Tensor, now: Now) -> Tensor:
        """Vaswani et al. 2017, 3.2.2: Concat(head_1 ... head_h) W^O, head_i = Attention(W^Q_i q, W^K_i h, W^V_i h)."""
        part, contexts = self.decoder.attention.heads, []
        for self.head, own in enumerate(now.heads):
            d = len(now.states[0]) // len(now.heads)
            w_q, w_k, w_v = (m.weight[self.head * d : (self.head + 1) * d] for m in (part.query, part.key, part.value))
            own.t, own.states = now.t, [w_k @ h for h in now.states]
            self.look(w_q @ query, own)
            contexts.append(total([a * (w_v @ h) for a, h in zip(own.weights, now.states, strict=True)]))
        now.weights = [
            total(list(of_heads)) / len(now.heads) for of_heads in zip(*(own.weights for own in now.heads), strict=True)
        ]
        return part.output.weight @ torch.cat(contexts)

    def look(self, query: Tensor, now: Now) -> Tensor:
        """One attention."""
        now.weights = self.window(self.scores(query, now), query, now)
        now.coverage = [had + weight for had, weight in zip(now.coverage, now.weights, strict=True)]
        return total([weight * state for weight, state in zip(now.weights, now.states, strict=True)])

    def top(self, layers: list[State]) -> Tensor:
        """The h that is the query and the output: the top layer's."""
        return layers[-1][0]

    def bahdanau(self, y: Tensor, now: Now) -> Tensor:
        """Section 3.1: c_i from s_{i-1}, the state BEFORE this step; then s_i = f(s_{i-1}, y_{i-1}, c_i)."""
        before = self.top(now.layers)
        c = self.gated(self.attend(before, now), before)
        now.layers = self.stack(torch.cat([y, c]), now.layers, self.decoder.rnn.cells)
        after = self.top(now.layers)
        self.context, self.state = c, after
        return self.deep_output(before, after, y, c) if "deep_output" in self.config["decoder"] else after

    def gated(self, c: Tensor, before: Tensor) -> Tensor:
        """Xu et al. 2015, 4.2.1: beta_t c_t, beta_t = sigmoid(f_beta(s_{t-1})), f_beta being linear."""
        if not self.config["decoder"].get("context_gate"):
            return c
        beta = 1 / (1 + torch.exp(-(self.decoder.gate.weight[0] @ before + self.decoder.gate.bias[0])))
        return beta * c

    def deep_output(self, before: Tensor, after: Tensor, y: Tensor, c: Tensor) -> Tensor:
        """A.2.2: t~_i = U_o s_{i-1} + V_o y_{i-1} + C_o c_i;  t_i = [max(t~_{i,2j-1}, t~_{i,2j})] for j = 1 ... l."""
        out = self.decoder.deep_output
        return self.maxout(out.state.weight @ before + out.token.weight @ y + out.context.weight @ c)

    def maxout(self, t: Tensor) -> Tensor:
        l = len(t) // 2  # noqa: E741  the paper's letter
        return torch.stack([torch.maximum(t[2 * j - 2], t[2 * j - 1]) for j in range(1, l + 1)])

    def luong(self, y: Tensor, now: Now) -> Tensor:
        """Section 3: h_t first (3.3: from [y; h~_{t-1}]), then c_t from it, then h~_t = tanh(W_c [c_t; h_t])."""
        x = torch.cat([y, now.fed]) if self.config["decoder"]["input_feeding"] else y
        now.layers = self.stack(x, now.layers, self.decoder.rnn.cells)
        h_t = self.top(now.layers)
        c_t = self.attend(h_t, now)
        self.context, self.state = c_t, h_t
        now.fed = torch.tanh(self.decoder.combine.weight @ torch.cat([c_t, h_t]))
        return now.fed

    def plain(self, y: Tensor, now: Now) -> Tensor:
        """The memory is not used."""
        now.layers = self.stack(y, now.layers, self.decoder.rnn.cells)
        return self.top(now.layers)

    def plain_every_step(self, y: Tensor, now: Now) -> Tensor:
        """Cho et al. 2014, section 2.2: h_t = f(h_{t-1}, y_{t-1}, c), c being the same at every t."""
        return self.plain(torch.cat([y, now.final]), now)

    def plain_wide(self, y: Tensor, now: Now) -> Tensor:
        """The output is P s_t."""
        return self.decoder.narrow.weight @ self.plain(y, now)

    def point(self, logits: Tensor, y: Tensor, x: list[int], now: Now) -> Tensor:
        """See et al. 2017, eq. 8: p_gen from c_t, s_t and y; eq. 9: P(w) = p_gen P_vocab(w) + (1 - p_gen) sum a_j."""
        w_c, w_s, w_y = self.decoder.pointer.gate.weight[0].split([len(self.context), len(self.state), len(y)])
        p_gen = sigmoid(w_c @ self.context + w_s @ self.state + w_y @ y + self.decoder.pointer.gate.bias[0])
        powers = torch.exp(logits - logits.max().detach())
        P = {w: p_gen * power / total(list(powers)) for w, power in enumerate(powers)}
        for word, weight in zip(x, now.weights, strict=True):
            P[word] = P.get(word, 0.0) + (1 - p_gen) * weight
        nothing = torch.tensor(-torch.inf)
        return torch.stack([torch.log(P[w]) if w in P else nothing for w in range(len(logits) + len(x))])

    # All together

    def __call__(self, source: list[int], target_input: list[int]) -> tuple[Tensor, Tensor]:
        """Logits [T, V] and weights [T, S] of one example; of an arm that copies log P of V + S words."""
        states, final_state = self.encode(source)
        zeros = [torch.zeros(())] * len(source)
        fed = torch.zeros(self.config["model"]["hidden_size"])
        now = Now(
            t=1,
            layers=self.bridge(final_state),
            states=states,
            final=final_state[0],
            fed=fed,
            coverage=zeros,
            weights=zeros,
            heads=[],
        )
        heads = self.config["decoder"].get("heads", 1)
        now.heads = [Now(**vars(now)) for _ in range(heads)] if heads > 1 else []
        model, tied = self.model, self.config["model"]["tied_target_embeddings"]
        w_o = model.target_embedding.weight if tied else model.readout.weight
        in_target = with_target_ids(torch.tensor([source]))[0, 1].tolist()
        logits, weights = [], []
        for token in target_input:
            y = model.target_embedding.weight[token]
            logits.append(w_o @ self.step(y, now) + model.readout.bias)
            if "pointer" in self.config["decoder"]:
                logits[-1] = self.point(logits[-1], y, in_target, now)
            weights.append(torch.stack(now.weights))
            now.t += 1
        return torch.stack(logits), torch.stack(weights)


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def total(parts: list[Tensor]) -> Tensor:
    return sum(parts[1:], parts[0])


def align(e: list[Tensor], inside: list[int], S: int) -> list[Tensor]:
    """Softmax over the scores e_1, e_2 ... of the positions inside; 0 at those of 1 ... S that are not."""
    highest = max((float(e[s - 1].detach()) for s in inside), default=0.0)
    powers = {s: torch.exp(e[s - 1] - highest) for s in inside}
    return [powers[s] / total(list(powers.values())) if s in powers else torch.zeros(()) for s in range(1, S + 1)]


def test_every_arm_has_its_equations() -> None:
    assert set(ARMS_AS_PUBLISHED) == set(ARMS) - {"transformer", *MECHANISMS, *HARD}


SOURCES = [[4, 5, 6, 7], [9], [10, 4, 9]]
TARGETS = [[1, 4, 5, 6, 3], [1, 7, 8, 4, 4], [1, 4, 4, 8, 6]]  # longer than their sources: windows run out

NARROW = "decoder.window.half_width=1"
DOT = "decoder.score._target_=attnspan.models.attention.scores.DotScore"
UPSIDE_DOWN = ("encoder=unidirectional", "encoder.reverse=true")
MORE = [
    ("plain", "rnn=lstm", "rnn.layers=2", *UPSIDE_DOWN),
    ("plain", "encoder.final_state=backward", "rnn.layers=2"),
    ("plain_wide", "rnn=lstm"),
    ("bahdanau", "rnn=lstm"),
    ("bahdanau", "rnn.layers=3"),
    ("bahdanau", "model.embedding_size=8", "model.tied_target_embeddings=true"),
    ("bahdanau_2015", "decoder.fused=false", "rnn=lstm", "rnn.layers=2"),
    ("bahdanau_windowed", "decoder.window.half_width=2"),
    ("coverage", "rnn=lstm", *UPSIDE_DOWN),
    ("luong_2015", "rnn.layers=3", "encoder.reverse=false", "decoder.input_feeding=false"),
    ("luong_2015", "rnn=gru", "rnn.layers=2"),
    ("luong_general", "rnn=lstm", "model.embedding_size=8", "model.tied_target_embeddings=true"),
    ("luong_location", "decoder.score.max_length=2", "decoder.input_feeding=true"),
    ("luong_local_m", "decoder.window.half_width=2", "decoder.input_feeding=true", "rnn=lstm", "rnn.layers=2"),
    ("luong_local_p", NARROW),
    ("luong_local_m", NARROW, DOT),
    ("luong_local_p", NARROW, DOT),
]


def published(wiring: tuple[str, ...]) -> tuple[str, str, str]:
    """The arm's three axes; the wiring may have replaced the score."""
    how, score, window = ARMS_AS_PUBLISHED[wiring[0]]
    return how, "dot" if DOT in wiring else score, window


def paper(composed: Compose, wiring: tuple[str, ...], kind: type[Paper] = Paper) -> Paper:
    return kind(small(composed, *wiring), small_config(composed, *wiring), published(wiring))


@pytest.mark.parametrize(
    "wiring",
    [wiring for wiring in WIRINGS if wiring[0] in ARMS_AS_PUBLISHED and wiring not in PARALLEL_CELLS] + MORE,
    ids=" ".join,
)
def test_logits_weights_and_gradients_equal_the_loop(composed: Compose, wiring: tuple[str, ...]) -> None:
    loop = paper(composed, wiring)
    logits, weights = loop.model(*pad(SOURCES), torch.tensor(TARGETS))
    expected = [
        (F.pad(right, (0, logits.size(-1) - right.size(-1)), value=-torch.inf), alignment)
        for right, alignment in (loop(*pair) for pair in zip(SOURCES, TARGETS, strict=True))
    ]
    for row, (right, alignment) in enumerate(expected):
        torch.testing.assert_close(logits[row], right, atol=1e-9, rtol=0)
        if weights is not None:
            torch.testing.assert_close(weights[row, :, : len(SOURCES[row])], alignment, atol=1e-9, rtol=0)

    mix = torch.randn(logits.shape)
    names, parameters = zip(*loop.model.named_parameters(), strict=True)
    losses = ((logits * mix).sum(), (torch.stack([logits for logits, _ in expected]) * mix).sum())
    gradients = (torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True) for loss in losses)
    for name, a, b in zip(names, *gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


# What is nearly the paper's: each mutant replaces one method of Paper, and its loop must not pass for the model.


def query_of_the_new_state(paper: Paper, y: Tensor, now: Now) -> Tensor:
    guess = Paper.bahdanau(paper, y, Now(**vars(now)))
    now.layers = paper.stack(torch.cat([y, paper.attend(guess, now)]), now.layers, paper.decoder.rnn.cells)
    return paper.top(now.layers)


def feed_the_new_vector(paper: Paper, y: Tensor, now: Now) -> Tensor:
    now.fed = Paper.luong(paper, y, Now(**vars(now)))
    return Paper.luong(paper, y, now)


def feed_nothing(paper: Paper, y: Tensor, now: Now) -> Tensor:
    now.fed = torch.zeros_like(now.fed)
    return Paper.luong(paper, y, now)


def last_row_for_all_beyond(paper: Paper, h_t: Tensor, now: Now) -> list[Tensor]:
    e = list(paper.decoder.attention.score.position.weight @ h_t)
    return [e[min(s, len(e) - 1)] for s in range(len(now.states))]


def bottom(paper: Paper, layers: list[State]) -> Tensor:
    return layers[0][0]


def linear(paper: Paper, final: Tensor, projection: nn.Linear) -> Tensor:
    return projection.weight @ final + projection.bias


def hidden_for_cells(paper: Paper, final_state: list[Tensor]) -> list[State]:
    return Paper.bridge(paper, final_state[:1])


def one_part_for_all_layers(paper: Paper, final_state: list[Tensor]) -> list[State]:
    return [Paper.bridge(paper, final_state)[0]] * paper.config["rnn"]["layers"]


def forget_the_cells(paper: Paper, x: Tensor, state: State, weights: list[Tensor]) -> State:
    return Paper.lstm(paper, x, (state[0], torch.zeros_like(state[1])), weights)


def forward_final_state(paper: Paper, forward: Tensor, backward: Tensor) -> list[Tensor]:
    return [forward]


def memory_left_reversed(paper: Paper, xs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    states, final_state = Paper.one_direction(paper, xs)
    return states[::-1], final_state


def not_reversed(paper: Paper, xs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return Paper.one_direction(paper, xs[::-1])


def renormalised(paper: Paper, e: list[Tensor], query: Tensor, now: Now) -> list[Tensor]:
    weights = Paper.local_p(paper, e, query, now)
    return [weight / total(weights) for weight in weights]


def wrapped(paper: Paper, e: list[Tensor], query: Tensor, now: Now) -> list[Tensor]:
    S, D = len(now.states), paper.config["decoder"]["window"]["half_width"]
    return align(e, sorted({(min(now.t, S) + away - 1) % S + 1 for away in range(-D, D + 1)}), S)


def window_of(p: Callable[[int, int], int], D: int) -> Callable[..., list[Tensor]]:
    """local-m with another centre p(t, S), or another half width."""

    def local_m(paper: Paper, e: list[Tensor], query: Tensor, now: Now) -> list[Tensor]:
        S = len(now.states)
        return align(e, [s for s in range(1, S + 1) if abs(s - p(now.t, S)) <= D], S)

    return local_m


def gaussian_of(sigma: float, first: int) -> Callable[..., list[Tensor]]:
    """local-p with another sigma for D = 1, or positions that count from ``first``."""

    def local_p(paper: Paper, e: list[Tensor], query: Tensor, now: Now) -> list[Tensor]:
        S = len(now.states)
        p = paper.predicted(query, S)
        aligned = align(e, [s for s in range(1, S + 1) if abs(s - 1 + first - p) <= 1], S)
        return [a * torch.exp(-((s - p) ** 2) / (2 * sigma**2)) for s, a in enumerate(aligned, start=first)]

    return local_p


def batch_for_sentence(paper: Paper, h_t: Tensor, S: int) -> Tensor:
    return Paper.predicted(paper, h_t, max(len(source) for source in SOURCES))


def include_this_step(paper: Paper, s: Tensor, now: Now) -> list[Tensor]:
    weights = align(Paper.additive_with_coverage(paper, s, now), list(range(1, len(now.states) + 1)), len(now.states))
    coverage = [had + weight for had, weight in zip(now.coverage, weights, strict=True)]
    return Paper.additive_with_coverage(paper, s, Now(**(vars(now) | {"coverage": coverage})))


def only_the_last_step(paper: Paper, s: Tensor, now: Now) -> list[Tensor]:
    return Paper.additive_with_coverage(paper, s, Now(**(vars(now) | {"coverage": now.weights})))


def halves(paper: Paper, t: Tensor) -> Tensor:
    return torch.maximum(*t.chunk(2))


def output_of_the_new_state(paper: Paper, before: Tensor, after: Tensor, y: Tensor, c: Tensor) -> Tensor:
    return Paper.deep_output(paper, after, after, y, c)


MUTANTS: dict[str, tuple[tuple[str, ...], str, Callable[..., Any]]] = {
    "the new state as the query": (("bahdanau",), "bahdanau", query_of_the_new_state),
    "the bottom layer as the query": (("bahdanau", "rnn.layers=2"), "top", bottom),
    "the bottom layer as the output": (("luong_2015",), "top", bottom),
    "feed the new vector": (("luong_general", "decoder.input_feeding=true"), "luong", feed_the_new_vector),
    "feed nothing": (("luong_general", "decoder.input_feeding=true"), "luong", feed_nothing),
    "do not scale": (("luong_scaled_dot",), "scaled_dot", Paper.dot),
    "rows beyond max_length": (
        ("luong_location", "decoder.score.max_length=2"),
        "location",
        last_row_for_all_beyond,
    ),
    "no window": (("luong_local_m", NARROW), "local_m", Paper.everywhere),
    "a wrapped window": (("luong_local_m", NARROW), "local_m", wrapped),
    "a wider window": (("luong_local_m", NARROW), "local_m", window_of(min, D=2)),
    "a step late": (("luong_local_m", NARROW), "local_m", window_of(lambda t, S: min(t - 1, S), D=1)),
    "the window runs on": (("luong_local_m", NARROW), "local_m", window_of(lambda t, S: min(t, S + 1), D=1)),
    "a Gaussian renormalised": (("luong_local_p", NARROW), "local_p", renormalised),
    "sigma = D": (("luong_local_p", NARROW), "local_p", gaussian_of(sigma=1.0, first=1)),
    "positions from 0": (("luong_local_p", NARROW), "local_p", gaussian_of(sigma=0.5, first=0)),
    "S of the batch": (("luong_local_p", NARROW), "predicted", batch_for_sentence),
    "coverage of this step too": (("coverage",), "additive_with_coverage", include_this_step),
    "coverage of the last step": (("coverage",), "additive_with_coverage", only_the_last_step),
    "coverage forgotten": (("coverage",), "additive_with_coverage", Paper.additive),
    "a bridge without tanh": (("plain",), "projected", linear),
    "h for c": (("luong_2015",), "bridge", hidden_for_cells),
    "one state for all layers": (("luong_2015",), "bridge", one_part_for_all_layers),
    "cells forgotten": (("bahdanau", "rnn=lstm"), "lstm", forget_the_cells),
    "maxout of halves": (("bahdanau_2015",), "maxout", halves),
    "maxout of s_i": (("bahdanau_2015",), "deep_output", output_of_the_new_state),
    "the forward final state": (("bahdanau_2015",), "final_of", forward_final_state),
    "a memory left reversed": (("luong_2015",), "one_direction", memory_left_reversed),
    "a source not reversed": (("luong_2015",), "one_direction", not_reversed),
}


@pytest.mark.parametrize(("wiring", "idea", "mutated"), MUTANTS.values(), ids=MUTANTS.keys())
def test_the_loop_can_tell_a_mutant(
    composed: Compose, wiring: tuple[str, ...], idea: str, mutated: Callable[..., Any]
) -> None:
    mutant = paper(composed, wiring, type("Mutant", (Paper,), {idea: mutated}))
    logits, weights = mutant.model(*pad(SOURCES), torch.tensor(TARGETS))
    differences = []
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        mutant_logits, mutant_weights = mutant(source, target)
        differences.append((logits[row] - mutant_logits).abs().max())
        if weights is not None:
            differences.append((weights[row, :, : len(source)] - mutant_weights).abs().max())
    assert max(differences) > 1e-4


def test_sigmoid_of_twice_is_tanh() -> None:
    """The identity that the fused path rests on."""
    for x in (-3.0, -0.1, 0.0, 2.0):
        assert math.isclose(math.tanh(x), 2 / (1 + math.exp(-2 * x)) - 1, abs_tol=1e-15)
