"""The processes of a run: one, or several started by torchrun or accelerate launch."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from accelerate import PartialState
from torch import Tensor


class Processes:
    """This process among its peers: rank, device, and the few things they must agree on."""

    def __init__(self, *, use_cpu: bool, timeout: int) -> None:
        # the system refuses waits beyond a century, which configurations use for "for ever"
        self._state = PartialState(cpu=use_cpu, timeout=timedelta(seconds=min(timeout, 10**9)))

    @property
    def count(self) -> int:
        return int(self._state.num_processes)

    @property
    def rank(self) -> int:
        return int(self._state.process_index)

    @property
    def is_first(self) -> bool:
        return bool(self._state.is_main_process)

    @property
    def device(self) -> torch.device:
        device: torch.device = self._state.device
        return device

    def peak_memory(self) -> int | None:
        """The most bytes this process has held so far, on its GPU or in the machine; None where nothing tells."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if self.device.type != "cpu":
            return None
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def wait(self) -> None:
        """Go on when all processes are here."""
        self._state.wait_for_everyone()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all get the same answer."""
        return self.total(float(flag)) > 0

    def total(self, value: float) -> float:
        """The sum of a number over the processes."""
        if self.count == 1:
            return value
        found = torch.tensor([value], dtype=torch.float64 if self.device.type != "mps" else torch.float32)
        found = found.to(self.device)
        torch.distributed.all_reduce(found)
        return float(found)

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, which give the same shapes in the same order."""
        if self.count > 1:
            under_way = [torch.distributed.all_reduce(tensor, async_op=True) for tensor in tensors]
            for work in under_way:
                work.wait()

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first process's."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, src=0)

    def from_first(self, value: Any) -> Any:
        """What the first process holds, for all (numbers, text and lists of them)."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]
