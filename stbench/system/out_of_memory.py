"""What libraries raise when memory runs out or a GPU fails, in words."""

from __future__ import annotations

import re

from ..errors import text_of

GPU = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|"
    r"HIP out of memory|CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"
)
CPU = re.compile(r"DefaultCPUAllocator: (can't|not enough) |Cannot allocate memory|std::bad_alloc")
BROKEN = re.compile(r"CUDA error: |CUDNN_STATUS_EXECUTION_FAILED|CUBLAS_STATUS_EXECUTION_FAILED|HIP error: |NVML error")
WANTED = re.compile(r"[Tt]ried to allocate ([\d.]+ ?[KMGTPE]iB)|Unable to allocate ([\d.]+ ?[KMGTPE]iB)")
WANTED_BYTES = re.compile(r"tried to allocate (\d+) bytes")

# what torch says of the card, in this order
CARD = re.compile(
    r"total capacity of (?P<total>[\d.]+ [KMGT]iB) of which (?P<free>[\d.]+ (?:bytes|[KMGT]iB)) is free.*"
    r"this process has (?P<own>[\d.]+ [KMGT]iB) memory in use",
    re.DOTALL,
)
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}
NOTABLE = 0.05  # of a card: a desktop that holds less is no neighbour that a method could not live with


def out_of_memory(error: BaseException) -> str | None:
    """``out of GPU memory (2.00 GiB more were wanted)``; ``None`` where ``error`` is of another kind.

    torch raises an error of its own on a GPU and a plain ``RuntimeError`` on a CPU, numpy a ``MemoryError``.
    """
    text = text_of(error)
    if GPU.search(text):
        where = "GPU memory"
    elif isinstance(error, MemoryError) or CPU.search(text):
        where = "memory"
    else:
        return None
    size, in_bytes = WANTED.search(text), WANTED_BYTES.search(text)
    wanted = next(filter(None, size.groups())) if size else f"{int(in_bytes[1]) / 2**30:.2f} GiB" if in_bytes else ""
    return f"out of {where}{f' ({wanted} more were wanted)' if wanted else ''}"


def crowded_out(error: BaseException) -> str | None:
    """What others hold of a GPU on which memory ran out, if what was wanted would have fitted without them.

    ``None`` where ``error`` is of another kind, where the method alone asks for more than there is, and where the
    numbers are not told.
    """
    text = text_of(error)
    card, wanted = CARD.search(text), WANTED.search(text)
    if not GPU.search(text) or card is None or wanted is None:
        return None
    total, free, own = (_bytes(card[name]) for name in ("total", "free", "own"))
    others = total - free - own
    more = _bytes(next(filter(None, wanted.groups())))
    if others < NOTABLE * total or own + more > total:
        return None
    return (
        f"{more / 2**30:.3g} GiB more were wanted than the {own / 2**30:.3g} GiB that it had, and other processes hold "
        f"{others / 2**30:.3g} of the {total / 2**30:.3g} GiB"
    )


def _bytes(size: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+) ?(?:bytes|([KMGTPE])iB)", size).groups()  # type: ignore[union-attr]
    return float(number) * UNITS.get(unit, 1)


def broken_device(error: BaseException) -> str | None:
    """What a GPU reported that no later computation of this process gets past; ``None`` where ``error`` is none of it.

    An illegal access, an assertion on the device, a card that fell off the bus: the context is lost with the process's
    tensors, whosever fault it was. Memory that ran out is not among it.
    """
    text = text_of(error)
    if out_of_memory(error) is not None or not BROKEN.search(text):
        return None
    return " ".join(text.split(". ")[0].split("\n")[0].split())
