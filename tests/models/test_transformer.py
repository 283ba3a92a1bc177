"""The transformer: against a slow loop in float64 written from the paper, and against torch's own forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnspan.errors import InputError
from attnspan.models.decoders.base import Decoder
from attnspan.models.positions import SinusoidalPositions, StackSizes
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose
from tests.models.arms import pad, small

SOURCES = [[4, 5, 6, 7], [9], [10, 4, 9]]
TARGETS = [[1, 4, 5, 6, 8], [1, 7, 8, 4, 4], [1, 4, 4, 8, 5]]
PAIRS = list(zip(SOURCES, TARGETS, strict=True))
PRE_NORM = ("encoder.norm_first=true", "decoder.norm_first=true")
SETTINGS = [
    (),
    PRE_NORM,
    ("encoder.heads=1", "decoder.heads=2", "decoder.layers=3", "model.embedding_size=8"),
    ("model.hidden_size=9", "encoder.heads=3", "decoder.heads=3"),
]


Place = tuple[nn.Module, int]
"""The positions of a stack, and where in it a query stands."""
Head = tuple[nn.Module, int, int]
"""The same, and the number of the head."""


class Paper:
    """Vaswani et al. 2017, one method an idea; one example at a time, one vector after another."""

    def __init__(self, model: Seq2Seq) -> None:
        self.model = model

    def position(self, t: int, d: int) -> Tensor:
        """3.5: PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(pos / 10000^(2i/d))."""
        angles = [t / 10000 ** (2 * (column // 2) / d) for column in range(d)]
        return torch.tensor([math.cos(a) if column % 2 else math.sin(a) for column, a in enumerate(angles)])

    def enter(self, token: int, t: int, embedding: nn.Embedding, part: nn.Module) -> Tensor:
        """3.5: the sum of embedding and position; a matrix where sizes differ."""
        y, project = embedding.weight[token], part.positions.project
        y = y if isinstance(project, nn.Identity) else project.weight @ y
        return y + self.added(t, len(y), part.positions)

    def added(self, t: int, d: int, positions: nn.Module) -> Tensor:
        """What enters a stack with its token at t."""
        return self.position(t, d)

    def norm(self, x: Tensor, weights: nn.LayerNorm) -> Tensor:
        """Ba et al. 2016, eq. 4, with torch's 1e-5 under the root."""
        mean = x.sum() / len(x)
        variance = ((x - mean) ** 2).sum() / len(x)
        return weights.weight * (x - mean) / torch.sqrt(variance + 1e-5) + weights.bias

    def add(self, x: Tensor, sublayer: Callable[[Tensor], Tensor], norm: nn.LayerNorm, first: bool) -> Tensor:
        """5.4 and 3.1: LayerNorm(x + Sublayer(x)); ahead of the sublayer in Xiong et al. 2020."""
        return x + sublayer(self.norm(x, norm)) if first else self.norm(x + sublayer(x), norm)

    def feed_forward(self, x: Tensor, layer: nn.Module) -> Tensor:
        """Eq. 2: max(0, x W_1 + b_1) W_2 + b_2."""
        inside = layer.linear1.weight @ x + layer.linear1.bias
        return layer.linear2.weight @ torch.clamp(inside, min=0) + layer.linear2.bias

    def attention(
        self, x: Tensor, others: list[Tensor], weights: nn.MultiheadAttention, at: Place | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """3.2.2: Concat(head_1 ... head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V); weights by head.

        In self-attention the query stands ``at`` a place of its stack, and the others from its begin on.
        """
        d, h = len(x), weights.num_heads
        heads, alphas = [], []
        for i in range(h):
            rows = slice(i * d // h, (i + 1) * d // h)
            w_q, w_k, w_v = (matrix[rows] for matrix in weights.in_proj_weight.chunk(3))
            b_q, b_k, b_v = (bias[rows] for bias in weights.in_proj_bias.chunk(3))
            q, keys, values = w_q @ x + b_q, [w_k @ y + b_k for y in others], [w_v @ y + b_v for y in others]
            context, alpha = self.head(q, keys, values, None if at is None else (*at, i))
            heads.append(context)
            alphas.append(alpha)
        return weights.out_proj.weight @ torch.cat(heads) + weights.out_proj.bias, alphas

    def head(
        self, q: Tensor, keys: list[Tensor], values: list[Tensor], at: Head | None = None
    ) -> tuple[Tensor, Tensor]:
        """Eq. 1: softmax(q K^T / sqrt(d_k)) V."""
        scores = [self.score(q, k, j, at) for j, k in enumerate(keys)]
        top = max(float(score.detach()) for score in scores)
        powers = [torch.exp(score - top) for score in scores]
        alpha = [power / sum(powers) for power in powers]
        return sum(a * v for a, v in zip(alpha, values, strict=True)), torch.stack(alpha)

    def score(self, q: Tensor, k: Tensor, j: int, at: Head | None) -> Tensor:
        """q^T k / sqrt(d_k), wherever they stand."""
        return q @ k / math.sqrt(len(k))

    def visible_at(self, t: int, xs: list[Tensor]) -> list[Tensor]:
        """3.2.3: in the decoder a position attends to all up to and including itself."""
        return xs[: t + 1]

    def encode(self, source: list[int]) -> list[Tensor]:
        """3.1, left half of figure 1."""
        encoder = self.model.encoder
        xs = [self.enter(token, t, self.model.source_embedding, encoder) for t, token in enumerate(source)]
        for layer in encoder.layers:
            states = self.read_by(layer, xs)
            xs = [self.encoder_layer(x, states, layer, (encoder.positions, t)) for t, x in enumerate(xs)]
        return self.finish(xs, encoder)

    def encoder_layer(self, x: Tensor, states: list[Tensor], layer: nn.Module, at: Place) -> Tensor:
        first = layer.norm_first
        x = self.add(x, lambda q: self.attention(q, states, layer.self_attn, at)[0], layer.norm1, first)
        return self.add(x, lambda q: self.feed_forward(q, layer), layer.norm2, first)

    def decode(self, target_input: list[int], memory: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """3.1, right half of figure 1; with the weights of the last layer, the mean over its heads."""
        decoder = self.model.decoder
        xs = [self.enter(token, t, self.model.target_embedding, decoder) for t, token in enumerate(target_input)]
        alignment: list[Tensor] = []
        for layer in decoder.layers:
            states, alignment = self.read_by(layer, xs), []
            xs = [
                self.decoder_layer(x, self.visible_at(t, states), memory, layer, alignment, (decoder.positions, t))
                for t, x in enumerate(xs)
            ]
        return self.finish(xs, decoder), torch.stack(alignment)

    def decoder_layer(
        self,
        x: Tensor,
        visible: list[Tensor],
        memory: list[Tensor],
        layer: nn.Module,
        alignment: list[Tensor],
        at: Place,
    ) -> Tensor:
        def cross_attend(q: Tensor) -> Tensor:
            output, alphas = self.attention(q, memory, layer.multihead_attn)
            alignment.append(sum(alphas) / len(alphas))
            return output

        first = layer.norm_first
        x = self.add(x, lambda q: self.attention(q, visible, layer.self_attn, at)[0], layer.norm1, first)
        x = self.add(x, cross_attend, layer.norm2, first)
        return self.add(x, lambda q: self.feed_forward(q, layer), layer.norm3, first)

    def read_by(self, layer: nn.Module, xs: list[Tensor]) -> list[Tensor]:
        """What a query of self-attention sees."""
        return [self.norm(x, layer.norm1) for x in xs] if layer.norm_first else xs

    def finish(self, xs: list[Tensor], part: nn.Module) -> list[Tensor]:
        """Only where the norms stand ahead of the sublayers is there one behind them all."""
        return [self.norm(x, part.norm) for x in xs] if isinstance(part.norm, nn.LayerNorm) else xs

    def __call__(self, source: list[int], target_input: list[int]) -> tuple[Tensor, Tensor]:
        """Logits [T, V] and weights [T, S]."""
        outputs, alignment = self.decode(target_input, self.encode(source))
        readout = self.model.readout
        return torch.stack([readout.weight @ o + readout.bias for o in outputs]), alignment


def assert_equals_the_loop(model: Seq2Seq, paper: Paper, sources: list[list[int]], targets: list[list[int]]) -> None:
    """Logits, weights and gradients of the model are those of the loop."""
    logits, weights = model(*pad(sources), torch.tensor(targets))
    expected = [paper(*pair) for pair in zip(sources, targets, strict=True)]
    for row, (right, alignment) in enumerate(expected):
        torch.testing.assert_close(logits[row], right, atol=1e-9, rtol=0)
        torch.testing.assert_close(weights[row, :, : len(sources[row])], alignment, atol=1e-9, rtol=0)

    mix = torch.randn(logits.shape)
    names, parameters = zip(*model.named_parameters(), strict=True)
    losses = ((logits * mix).sum(), (torch.stack([logits for logits, _ in expected]) * mix).sum())
    for name, a, b in zip(names, *(torch.autograd.grad(loss, parameters) for loss in losses), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_logits_weights_and_gradients_equal_the_loop(composed: Compose, settings: tuple[str, ...]) -> None:
    model = small(composed, "transformer", *settings)
    assert_equals_the_loop(model, Paper(model), SOURCES, TARGETS)


def see_the_next_one(paper: Paper, t: int, xs: list[Tensor]) -> list[Tensor]:
    return xs[: t + 2]


def do_not_see_itself(paper: Paper, t: int, xs: list[Tensor]) -> list[Tensor]:
    return xs[: max(t, 1)]


def do_not_scale(paper: Paper, q: Tensor, k: Tensor, j: int, at: Head | None) -> Tensor:
    return q @ k


def count_from_1(paper: Paper, t: int, d: int) -> Tensor:
    return Paper.position(paper, t + 1, d)


def sines_then_cosines(paper: Paper, t: int, d: int) -> Tensor:
    encoding = Paper.position(paper, t, d)
    return torch.cat([encoding[::2], encoding[1::2]])


def norm_the_sublayer(
    paper: Paper, x: Tensor, sublayer: Callable[[Tensor], Tensor], norm: nn.LayerNorm, first: bool
) -> Tensor:
    return x + paper.norm(sublayer(x), norm)


MUTANTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "see the next one": ("visible_at", see_the_next_one),
    "do not see itself": ("visible_at", do_not_see_itself),
    "do not scale the scores": ("score", do_not_scale),
    "count from 1": ("position", count_from_1),
    "sines, then cosines": ("position", sines_then_cosines),
    "norm inside": ("add", norm_the_sublayer),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("idea", "mutated"), MUTANTS.values(), ids=MUTANTS.keys())
def test_the_loop_can_tell_a_mutant(composed: Compose, idea: str, mutated: Callable[..., Any]) -> None:
    model = small(composed, "transformer")
    mutant = type("Mutant", (Paper,), {idea: mutated})(model)
    logits = model(*pad(SOURCES), torch.tensor(TARGETS))[0]
    assert max((logits[row] - mutant(*pair)[0]).abs().max() for row, pair in enumerate(PAIRS)) > 1e-4


def torchs(part: nn.Module, kind: type, stack: type) -> nn.Module:
    """The same layers in torch's own forward pass."""
    one, ours = part.layers[0], {name: value for name, value in part.state_dict().items() if "positions" not in name}
    d, first = one.self_attn.embed_dim, one.norm_first
    layer = kind(d, one.self_attn.num_heads, one.linear1.out_features, 0.0, batch_first=True, norm_first=first)
    plainly = {"enable_nested_tensor": False} if stack is nn.TransformerEncoder else {}
    whole = stack(layer, len(part.layers), norm=nn.LayerNorm(d) if first else None, **plainly)
    whole.load_state_dict(ours)
    return whole


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("settings", [(), PRE_NORM], ids=" ".join)
def test_it_is_torchs(composed: Compose, settings: tuple[str, ...]) -> None:
    """Encoder, each source alone; decoder, with a causal mask; and in a batch with torch's padding masks."""
    model = small(composed, "transformer", "model.hidden_size=32", *settings)
    encoder = torchs(model.encoder, nn.TransformerEncoderLayer, nn.TransformerEncoder)
    decoder = torchs(model.decoder, nn.TransformerDecoderLayer, nn.TransformerDecoder)

    source, lengths = pad(SOURCES, 6)
    memory = model.encode(source, lengths)
    embedded = torch.randn(len(SOURCES), 7, 5)
    output = model.decoder.unroll(embedded, memory).output
    causal = nn.Transformer.generate_square_subsequent_mask(7, dtype=torch.float64)
    target, _ = model.decoder.positions(embedded, 0, whole=True)
    for row, words in enumerate(SOURCES):
        states = encoder(model.encoder.positions(model.source_embedding(torch.tensor([words])), 0, whole=True)[0])
        torch.testing.assert_close(memory.states[row, : len(words)], states[0], atol=1e-9, rtol=0)
        alone = decoder(target[row : row + 1], states, tgt_mask=causal)
        torch.testing.assert_close(output[row], alone[0], atol=1e-9, rtol=0)
    together = decoder(target, memory.states, tgt_mask=causal, memory_key_padding_mask=~memory.mask)
    torch.testing.assert_close(output, together, atol=1e-9, rtol=0)


def test_evaluation_takes_the_numbers_of_training(composed: Compose) -> None:
    """Without dropout, and in the precision of autocast too, where torch's own layers switch to another kernel."""
    model = small(composed, "transformer")
    inputs = (*pad(SOURCES), torch.tensor(TARGETS))
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            training = model.train()(*inputs)[0]
            with torch.no_grad():
                evaluation = model.eval()(*inputs)[0]
        assert torch.equal(training, evaluation)


def test_dropout_has_its_places(composed: Compose) -> None:
    """In every sublayer, in training only, and never on the weights that are reported."""
    model = small(composed, "transformer", "model.dropout=0.5", PRE_NORM[0]).train()
    weights = model(*pad(SOURCES), torch.tensor(TARGETS))[1]
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:2]))
    for part in (model.encoder, model.decoder):
        for module in part.modules():
            if isinstance(module, nn.Dropout):
                assert module.p == 0.5
            if isinstance(module, nn.MultiheadAttention):
                assert module.dropout == 0.5


@pytest.mark.usefixtures("float64")
def test_a_step_works_on_the_new_tokens_only(composed: Compose) -> None:
    """The cache grows by what was read, in pieces of any size, and only the new tokens go through the layers."""
    model = small(composed, "transformer")
    memory, embedded = model.encode(*pad(SOURCES)), torch.randn(3, 6, 5)
    whole = model.decoder.unroll(embedded, memory)
    sizes: list[int] = []
    for layer in model.decoder.layers:
        layer.linear1.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].size(1)))
    state, outputs = model.decoder.start(memory), []
    for piece in (embedded[:, :1], embedded[:, 1:4], embedded[:, 4:]):
        decoded = model.decoder.step(piece, state, memory)
        state = decoded.state
        outputs.append(decoded.output)
        assert all(part.shape == (3, sum(o.size(1) for o in outputs), 16) for part in state)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole.output, atol=1e-9, rtol=0)
    assert sizes == [1, 1, 3, 3, 2, 2]


@pytest.mark.usefixtures("float64")
def test_layers_are_drawn_apart(composed: Compose) -> None:
    """torch.nn.TransformerEncoder copies one layer; here no two begin alike."""
    model = small(composed, "transformer")
    for part in (model.encoder, model.decoder):
        assert not torch.equal(part.layers[0].linear1.weight, part.layers[1].linear1.weight)


def test_positions_know_any_length() -> None:
    """In float32 as in float64 to four digits far out, and distinct in bfloat16 too."""
    positions = SinusoidalPositions(sizes=StackSizes(embedding=8, hidden=8, heads=1, is_causal=True))
    far, _ = positions(torch.zeros(1, 5002, 8), 0, whole=True)
    right = torch.stack([Paper.position(None, t, 8) for t in (5000, 5001)])
    torch.testing.assert_close(far[0, 5000:], right, atol=1e-3, rtol=0)
    halves, _ = positions(torch.zeros(1, 2, 8, dtype=torch.bfloat16), 300, whole=False)
    assert halves.dtype == torch.bfloat16
    assert not torch.equal(halves[0, 0], halves[0, 1])


@pytest.mark.usefixtures("float64")
def test_other_decoders_read_its_memory(composed: Compose) -> None:
    """It is an encoder like the others: steps and path of Bahdanau's decoder, from the mean of its states."""
    model = small(composed, "bahdanau", "encoder=transformer")
    memory, embedded = model.encode(*pad(SOURCES, 6)), torch.randn(3, 4, 5)
    torch.testing.assert_close(memory.final_state[0][0], memory.states[0, :4].mean(dim=0))
    path, steps = model.decoder.unroll(embedded, memory), Decoder.unroll(model.decoder, embedded, memory)
    torch.testing.assert_close(path.output, steps.output, atol=1e-9, rtol=0)


@pytest.mark.usefixtures("float64")
def test_other_encoders_make_its_memory(composed: Compose) -> None:
    model = small(composed, "transformer", "encoder=bidirectional")
    assert model(*pad(SOURCES), torch.tensor(TARGETS))[0].isfinite().all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hidden_size=10", r"encoder\.heads: must divide the hidden size 10 into equal parts, and 4 does not"),
        ("decoder.heads=3", r"decoder\.heads: must divide the hidden size 8 into equal parts, and 3 does not"),
        ("encoder.hidden_size=12", r"model\.hidden_size=8 and encoder\.hidden_size=12 differ"),
        ("decoder.heads=0", r"decoder\.heads: must be a whole number of at least 1, not 0"),
        ("encoder.heads=2.0", r"encoder\.heads: must be a whole number of at least 1, not 2\.0"),
        ("decoder.layers=0", r"decoder\.layers: must be a whole number of at least 1, not 0"),
        ("encoder.layers=-1", r"encoder\.layers: must be a whole number of at least 1, not -1"),
        ("decoder.norm_first=3", r"decoder\.norm_first: must be true or false, not 3"),
        ("decoder.feedforward_size=0", r"decoder\.feedforward_size: must be a whole number of at least 1"),
    ],
)
def test_bad_sizes_are_refused(composed: Compose, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(composed, "transformer", override)
