"""What hard attention reads out at each step: its definition, its gradients, and what it keeps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attnspan.kernels import emissions
from attnspan.kernels.dropout import RepeatedDropout
from attnspan.kernels.emissions import Emissions

pytestmark = pytest.mark.usefixtures("float64")

B, S, H, V, T = 5, 4, 3, 6, 3
Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def definition(values: Tensor, weight: Tensor, bias: Tensor) -> Step:
    """Of each step, by torch's own operations."""

    def step(share: Tensor, prior: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        log_p = (torch.tanh(values + share.unsqueeze(1)) @ weight.t() + bias).log_softmax(dim=-1)
        seen = torch.stack([log_p[b, :, token[b]] for b in range(len(token))])
        return (log_p + prior.unsqueeze(-1)).logsumexp(dim=1), seen

    return step


def drawn(largest_weight: float = 1.0) -> list[Tensor]:
    """Values, W, b, shares of all steps and the prior of the first."""
    torch.manual_seed(1)
    prior = torch.randn(B, S).log_softmax(dim=-1)
    prior[1, 2] = -1e30  # an impossible position
    given = torch.randn(B, S, H), largest_weight * torch.randn(V, H), torch.randn(V), torch.randn(T, B, H), prior
    return [part.requires_grad_() for part in given]


def unrolled(step: Step, shares: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """Steps whose prior is made of what the step before has seen: all log p, and the last prior."""
    found, tokens = [], (torch.arange(T * B) * 7 % V).view(T, B)
    for share, token in zip(shares.unbind(0), tokens, strict=True):
        log_p, seen = step(share, prior, token)
        prior = (prior + seen).log_softmax(dim=-1)
        found.append(log_p)
    return torch.stack(found), prior


@pytest.fixture(params=[1, 2 * S, 100])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example at a time, two, with one left over, and all."""
    monkeypatch.setattr(emissions, "_ROWS", request.param)


@pytest.mark.usefixtures("backend", "rows")
@pytest.mark.parametrize("largest_weight", [1.0, 100.0])
def test_emissions_and_gradients_are_their_definition(largest_weight: float) -> None:
    """Where tokens are almost impossible, too, e^-60 and less."""
    given = drawn(largest_weight)
    outcomes = []
    for steps in (Emissions, definition):
        log_p, prior = unrolled(steps(*given[:3]), *given[3:])
        loss = (log_p * torch.sin(torch.arange(log_p.numel())).view_as(log_p)).sum() + prior.exp()[:, 0].sum()
        outcomes.append((log_p, prior, *torch.autograd.grad(loss, given)))
    assert bool(outcomes[1][0].min() < -60) == (largest_weight == 100)
    for mine, right in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, right, atol=1e-9, rtol=1e-9)


@pytest.mark.usefixtures("backend")
def test_tokens_too_unlikely_for_single_precision() -> None:
    """e^-200 is 0 in float32, and its logarithm and gradient are not."""
    exact, single = ([part.detach().to(dtype) for part in drawn()] for dtype in (torch.float64, torch.float32))
    for given in (exact, single):
        given[2][:] = torch.arange(V) * 100.0  # b
    outcomes = []
    for given in (exact, single):
        given = [part.requires_grad_() for part in given]
        log_p = unrolled(Emissions(*given[:3]), *given[3:])[0]
        outcomes.append((log_p, *torch.autograd.grad(log_p[..., 1].sum(), given[:4])))
    assert outcomes[0][0][..., 1].max() < -200
    for right, mine in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine.double(), right, atol=1e-3, rtol=1e-5)


@pytest.mark.usefixtures("backend")
def test_large_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """tanh of hundreds is 1, not the quotient of infinities."""
    given = drawn()
    for largest in (20.0, 400.0):
        values, shares = (largest * given[at].detach() for at in (0, 3))
        outcomes = [unrolled(steps(values, *given[1:3]), shares, given[4])[0] for steps in (Emissions, definition)]
        torch.testing.assert_close(*outcomes, atol=1e-9, rtol=0)


def test_gradients_of_some_steps_and_inputs_again_and_again() -> None:
    """A graph that is kept may be gone through several times, and a pass may need no gradient of what steps share."""
    given = drawn()
    found = [unrolled(steps(*given[:3]), *given[3:])[0] for steps in (Emissions, definition)]
    for steps, inputs in ((T, given), (1, given[:3]), (T, given[3:]), (2, given[:1]), (T, given)):
        gradients = [torch.autograd.grad(one[:steps].sin().sum(), inputs, retain_graph=True) for one in found]
        for mine, right in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, right, atol=1e-9, rtol=1e-9)


@pytest.mark.usefixtures("backend", "rows")
def test_dropout_is_the_same_when_computed_again() -> None:
    """Gradients are those of finite differences, which could not be if the passes dropped other features."""

    def both(*given: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(5)
        log_p, prior = unrolled(Emissions(*given[:3], dropout=0.3), *given[3:])
        return log_p, prior.exp()

    given = drawn()
    plain, dropped = unrolled(Emissions(*given[:3]), *given[3:])[0], both(*given)[0]
    assert (plain - dropped).abs().max() > 0.1
    prior = given.pop()
    assert torch.autograd.gradcheck(lambda *given: both(*given, prior.detach()), given, raise_exception=False)


def test_dropout_keeps_its_share_and_the_mean() -> None:
    masks = RepeatedDropout.draw(0.3).masks(torch.device("cpu"))
    first, second = (masks.like(torch.empty(50, 40, 51)) for _ in range(2))
    for mask in (first, second):
        assert float(mask.double().mean()) == pytest.approx(0.7, abs=0.005)  # four standard deviations
    assert float((first == second).double().mean()) == pytest.approx(0.7**2 + 0.3**2, abs=0.01)
    assert RepeatedDropout.draw(0.3).scale == pytest.approx(1 / 0.7, abs=1e-4)


def test_half_precision_normalises_in_single_precision() -> None:
    given = [part.detach().bfloat16() for part in drawn()]
    prior = given[4].float().log_softmax(dim=-1)
    log_p, seen = Emissions(*given[:3])(given[3][0], prior, torch.zeros(B, dtype=torch.long))
    assert log_p.dtype == seen.dtype == torch.float32
    torch.testing.assert_close(log_p.exp().sum(dim=-1), torch.ones(B, dtype=torch.float32), atol=1e-5, rtol=0)
    exact = definition(*(part.float() for part in given[:3]))(given[3][0].float(), prior, torch.zeros(B).long())
    torch.testing.assert_close(log_p, exact[0], atol=0.05, rtol=0)
