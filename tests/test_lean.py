"""Lean steps: what is not kept comes back bit for bit, and dropout is dropout."""

from __future__ import annotations

import contextlib
import copy
import weakref

import pytest
import torch
from torch import nn

from florentune.model.florence import build_model
from florentune.training.lean import lean_step
from florentune.training.objective import AnswerLoss
from tiny_model import tiny_config, tiny_tokenizer


def gradients(model, lean, *, bf16):
    objective = AnswerLoss(model, [0, 9, 8, 2])
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    answers = torch.tensor([[0, 30, 31, 2], [0, 2, -100, -100]])
    with lean_step() if lean else contextlib.nullcontext():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=not lean):
            loss = objective(pixels, None, answers).sum()
        loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_are_those_of_torch(bf16):
    torch.manual_seed(0)
    plain = build_model(tiny_config(tiny_tokenizer().get_vocab_size())).train()
    plain.set_attn_implementation("eager")
    (loss, found), (wanted_loss, wanted) = (
        gradients(model, lean, bf16=bf16) for model, lean in ((copy.deepcopy(plain), True), (plain, False))
    )
    assert torch.equal(loss, wanted_loss)
    for name, gradient in wanted.items():
        assert (gradient is None) == (found[name] is None), name
        assert gradient is None or torch.equal(found[name], gradient), name


@pytest.mark.parametrize("cheap", [nn.functional.gelu, lambda x: nn.functional.layer_norm(x, (8,)), nn.Dropout(0.5)])
def test_cheap_values_are_not_kept(cheap):
    x, above = torch.randn(4, 8, requires_grad=True), nn.Linear(8, 8)
    torch.manual_seed(3)
    with lean_step():
        value = cheap(x)
        kept, out = weakref.ref(value), above(value.view(2, 2, 8)[1:])
        wanted = value.detach()[2:].sum(0)
        del value
        assert kept() is None
        out.sum().backward()
    assert torch.equal(above.weight.grad, wanted.expand(8, 8))
    assert torch.isfinite(x.grad).all()


def test_casts_of_weights_are_not_kept():
    layer = nn.Linear(8, 8)
    x = torch.randn(4, 8, requires_grad=True)
    with lean_step():
        cast = layer.weight.to(torch.bfloat16)
        kept, out = weakref.ref(cast), x.bfloat16() @ cast.t()
        del cast
        assert kept() is None
        out.sum().backward()
    assert torch.equal(x.grad, (torch.ones(4, 8).bfloat16() @ layer.weight.detach().bfloat16()).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_the_share_it_is_told_and_scales_the_rest(dtype, p):
    x = torch.ones(400, 501, dtype=dtype, requires_grad=True)
    torch.manual_seed(7)
    with lean_step():
        found = nn.functional.dropout(x, p)
        again = (torch.manual_seed(7), nn.functional.dropout(x, p))[1]
        found.sum().backward()
    dropped = (found == 0).float()
    assert dropped.mean() == pytest.approx(p, abs=0.004)  # four standard deviations
    assert dropped.mean(dim=0).std() == pytest.approx((p * (1 - p) / 400) ** 0.5, rel=0.2)  # as independent draws have
    assert dropped.mean(dim=1).std() == pytest.approx((p * (1 - p) / 501) ** 0.5, rel=0.2)
    assert found[found != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-2)
    assert torch.equal(x.grad, found.detach())
    assert torch.equal(found, again)


def test_dropout_does_nothing_where_there_is_none():
    x = torch.randn(3, 5)
    with lean_step():
        assert torch.equal(nn.functional.dropout(x, 0.0), x)
        assert torch.equal(nn.functional.dropout(x, 0.5, training=False), x)
        assert torch.equal(nn.functional.dropout(x, 1.0), torch.zeros_like(x))
