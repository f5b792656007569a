"""How many slabs go through a network at a time, so that a process keeps to its memory."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from liver_monai.errors import InputError

BYTES_A_PIXEL = 1024
"""Of a slab, at the height of a forward pass. Tensors take 350 (mobilenet) to 512 (resnet50), kernels their own."""
GB = 1e9

SIGNS = ("out of memory", "allocate memory", "bad_alloc", "bad allocation", "alloc_failed")
"""Of CUDA, of PyTorch on a CPU, of C++ and ONNX Runtime, of cuDNN and cuBLAS."""


def fitting_batch(batch_size: int, *, pixels: int, max_memory_gb: float | None) -> int:
    """As many slabs as the bundle asks for, or as fit beside what the process holds already.

    Args:
        batch_size: what the bundle asks for.
        pixels: of a slice on the model grid.
        max_memory_gb: of the whole process, in 10^9 bytes; ``None`` is no limit.

    Raises:
        InputError: not even one slab fits.
    """
    if max_memory_gb is None:
        return batch_size
    held, slab = resident_bytes(), BYTES_A_PIXEL * pixels
    fitting = int((max_memory_gb * GB - held) // slab)
    if fitting < 1:
        raise InputError(
            f"--max-memory {max_memory_gb:g}: the CT is read and {held / GB:.2f} GB are taken; "
            f"{(held + slab) / GB:.2f} GB are needed at least"
        )
    return min(batch_size, fitting)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, of the GPU or of the computer: libraries tell it by their own words only."""
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in words for sign in SIGNS)


def resident_bytes() -> int:
    """What the process holds; where the system does not tell, the most that it held until now."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        raise InputError("--max-memory: this system does not tell what a process holds; leave it out")
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
