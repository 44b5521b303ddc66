"""What a compiled kernel is made of: counts from its machine code (SASS) and the resources that it asks for."""

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import triton

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

REGISTER_FILE, WARPS, SHARED = 65536, 64, 227 * 1024
"""Of one multiprocessor of an H100: 32-bit registers, warps, bytes of shared memory."""

_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
_FLOAT64 = re.compile(r"^D(ADD|FMA|MUL|SETP|MNMX|SET)\b|^(F2F|F2I|I2F|FRND)\b.*F64|^MUFU\.\w*64H")
_TENSOR_CORE = re.compile(r"^[HIQBD]G?MMA\b")


def counts(kernel: Any) -> dict[str, int]:
    """Return instruction counts and resources of a kernel that Triton compiled, by name; all are whole numbers.

    ``ldg`` are loads from global memory and ``ldg128`` those of 16 bytes a thread, ``ldgsts`` and ``ldgsts128`` those
    that go to shared memory while the thread goes on, ``stg`` and ``stg128`` stores,
    ``ldl`` and ``stl`` local memory, which is where spilled registers go. ``dots`` counts the matrix products of the
    source, ``tensor_core`` their instructions, ``hgmma`` those of whole warp groups.
    """
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        code = _tool("nvdisasm", "-c", str(cubin))
        usage = _tool("cuobjdump", "-res-usage", str(cubin))
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of registers:\n{usage}")
    registers, stack, local = map(int, found.groups())
    operations = Counter(_INSTRUCTION.findall(code))

    def number(pattern: str | re.Pattern[str]) -> int:
        return sum(times for name, times in operations.items() if re.search(pattern, name))

    warps, shared = int(kernel.metadata.num_warps), int(kernel.metadata.shared)
    return {
        "registers": registers,
        "spill_bytes": _spilled(kernel) if stack else 0,
        "stack_bytes": stack,
        "local_bytes": local,
        "ldl": number(r"^LDL\b"),
        "stl": number(r"^STL\b"),
        "fp64": number(_FLOAT64),
        "dots": len(re.findall(r"\btt\.dot\b", kernel.asm["ttir"])),
        "hgmma": number(r"^HGMMA\b"),
        "tensor_core": number(_TENSOR_CORE),
        "ldg": number(r"^LDG\b"),
        "ldg128": number(r"^LDG\b.*\.128"),
        "ldgsts": number(r"^LDGSTS\b"),
        "ldgsts128": number(r"^LDGSTS\b.*\.128"),
        "stg": number(r"^STG\b"),
        "stg128": number(r"^STG\b.*\.128"),
        "shared_bytes": shared,
        "instructions": sum(times for name, times in operations.items() if name != "NOP"),
        "warps": warps,
        "programs_at_once": occupancy(registers, warps, shared),
    }


def occupancy(registers: int, warps: int, shared: int) -> int:
    """Return how many programs of so many registers a thread, warps and shared bytes a multiprocessor holds."""
    a_thread = -(-registers // 8) * 8
    by_registers = REGISTER_FILE // (a_thread * 32 * warps)
    return min(WARPS // warps, by_registers, SHARED // shared if shared else WARPS)


def _spilled(kernel: Any) -> int:
    """Assemble again and return the bytes of spill stores and loads that the assembler owns up to."""
    text = kernel.asm["ptx"]
    target = re.search(r"^\.target\s+(\w+)", text, re.MULTILINE)
    assert target is not None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(text)
        arguments = ("-v", f"--gpu-name={target[1]}", str(source), "-o", str(Path(folder) / "kernel.cubin"))
        # Triton 3.9 brings two assemblers, and the older one does not read all that the newer one is given.
        for name in sorted((path.name for path in TOOLS.glob("ptxas*")), reverse=True):
            try:
                said = _tool(name, *arguments)
            except RuntimeError as error:
                refused = error
            else:
                return sum(map(int, re.findall(r"(\d+) bytes spill", said)))
    raise refused


def _tool(name: str, *arguments: str) -> str:
    done = subprocess.run([str(TOOLS / name), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr or done.stdout}")
    return done.stdout + done.stderr
