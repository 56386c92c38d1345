"""Dropout with few random bits is dropout; freed memory stays inside a run and goes back after it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from florentune.training.cpu import QuickDropout, checkpoint_contexts


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


def test_a_checkpointed_layer_drops_the_same_values_the_second_time():
    x = torch.ones(50, 50, requires_grad=True)
    with QuickDropout():
        found = checkpoint(
            lambda t: nn.functional.dropout(t * t, 0.5), x, use_reentrant=False, context_fn=checkpoint_contexts
        )
    found.sum().backward()
    assert torch.equal(x.grad == 0, found == 0)
    assert 0 < (found == 0).sum() < found.numel()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to keep memory")
def test_freed_memory_is_kept_inside_and_given_back_afterwards():
    """In a process of its own, whose memory nobody else uses."""
    code = """
from pathlib import Path
from florentune.training.cpu import memory_kept

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) // 256

def use():
    bytearray(300 << 20)
    return megabytes()

found = [megabytes()]
with memory_kept():
    found += [use(), use()]
print(*found, megabytes(), use())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, once, twice, after, outside = map(int, done.stdout.split())
    assert 290 < once - before < 330
    assert twice == pytest.approx(once, abs=10)
    assert after - before < 50
    assert outside - before < 50
