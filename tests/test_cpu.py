"""Dropout with few random bits is dropout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from florentune.training.cpu import QuickDropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_the_share_it_is_told_and_scales_the_rest(dtype, p):
    x = torch.ones(400, 501, dtype=dtype, requires_grad=True)
    torch.manual_seed(7)
    with QuickDropout():
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
    with QuickDropout():
        assert torch.equal(nn.functional.dropout(x, 0.0), x)
        assert torch.equal(nn.functional.dropout(x, 0.5, training=False), x)
        assert torch.equal(nn.functional.dropout(x, 1.0), torch.zeros_like(x))
