"""A dry launch: every ``kernel[grid](...)`` of a launcher is compiled for an H100 exactly as there, and not run.

Triton asks its driver which GPU there is. Here a stand-in answers sm_90, so the project's own launchers can be called
with CPU tensors: Triton specialises on dtypes, on sizes that are 1 or multiples of 16 and on alignment as ever, and
compiles down to the machine code. Outputs stay uninitialised. A process that interprets kernels cannot do it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TARGET = GPUTarget("cuda", 90, 32)


class _StandIn:
    """What Triton asks of a driver until a kernel is launched."""

    launcher_cls = staticmethod(lambda *arguments, **named: None)

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        return torch.cuda

    def map_python_to_cpp_type(self, name: str) -> str:
        return name


@dataclass
class Compiled:
    """One kernel that would have been launched: ``kernel`` is Triton's, ``seconds`` CPU time with ptxas's."""

    name: str
    kernel: Any
    seconds: float


def dry_launch(call: Callable[[], object]) -> list[Compiled]:
    """Call a launcher and return the different kernels that it would have launched, in order."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("a process that interprets kernels cannot compile them; unset TRITON_INTERPRET")
    made: list[Compiled] = []
    launch = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        started = _cpu_seconds()
        kernel = launch(self, *arguments, grid=grid, warmup=True, **named)
        if not any(one.kernel is kernel for one in made):
            made.append(Compiled(self.fn.__name__, kernel, _cpu_seconds() - started))
        return kernel

    driver.set_active(_StandIn())
    JITFunction.run = compile_only
    try:
        call()
    finally:
        JITFunction.run = launch
    return made


def _cpu_seconds() -> float:
    """Processor time of this process and of the assemblers that it ran; wall time would count who else is at work."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
