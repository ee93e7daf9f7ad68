"""Counts what a training step asks of a GPU: operations issued, floating-point operations, bytes moved, memory.

Nothing is computed: tensors are on torch's ``meta`` device, which knows shapes and no values. So a count is exact,
takes seconds at any size, and is the same on every machine; and it shows that nothing in a step waits for the device,
as what asks for a value cannot run. The methods take the paths that they take on a GPU, and the operations are those
that torch issues there (``stbench/training/as_on_gpu.py``).

Not counted: what a library does inside of an operation, such as workspaces, layout changes or reading an operand twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.flop_counter import flop_registry

from stbench.training.step_memory import PeakBytes, tensors
from stbench.trials.cards import Operations

# operations that move nothing: other views of the same memory, and memory that nobody has written yet
NOTHING = {
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "expand", "transpose", "permute", "t", "slice", "select"),
    *("unsqueeze", "squeeze", "alias", "detach", "as_strided", "split", "split_with_sizes", "unsafe_split", "unbind"),
    *("unfold", "diagonal", "chunk", "narrow", "lift_fresh", "is_same_size", "sym_size", "empty", "empty_like"),
    *("empty_strided", "new_empty", "new_empty_strided"),
}
# those that look at a shape alone
SHAPE = {"zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones", "new_full"}
# those whose destination is overwritten without being read
OVERWRITE = {"copy_", "fill_", "zero_", "uniform_", "normal_", "random_", "bernoulli_", "exponential_"}
# those that read of their first operand no more than they return
GATHER = {"index", "embedding", "index_select", "gather"}


class Operation(NamedTuple):
    name: str
    flops: int
    n_bytes: int  # read and written

    @property
    def convolves(self) -> bool:
        return "conv" in self.name


def exactly(operations: Mapping[Operation, int]) -> list[Operations]:
    """For the model of a card: each operation apart."""
    return [Operations(each.convolves, n, each.flops * n, each.n_bytes * n) for each, n in operations.items()]


class Count(PeakBytes):
    """Counts while it is entered: ``operations`` says how often each was issued."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[Operation] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = super().__torch_dispatch__(func, types, args, kwargs)
        packet, name = func._overloadpacket, func._overloadpacket.__name__
        if name not in NOTHING and func.namespace != "prim":
            flops = int(flop_registry[packet](*args, **kwargs, out_val=out)) if packet in flop_registry else 0
            flops = LSTM_FLOPS[name](args) if name in LSTM_FLOPS else flops
            self.operations[Operation(name, flops, _bytes_moved(func, name, args, kwargs, out))] += 1
        return out


def _touched(tensor: Tensor) -> int:
    """Bytes: an expanded tensor has more elements than memory."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def _bytes_moved(func: Any, name: str, args: Any, kwargs: Any, out: Any) -> int:
    """Each operand read once, each result written once; a tensor that is changed in place is both."""
    read: dict[tuple[int, int, int], int] = {}
    written: dict[tuple[int, int, int], int] = {}

    def key(tensor: Tensor) -> tuple[int, int, int]:
        return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.numel()

    results = tensors(out)
    for position, declared in enumerate(func._schema.arguments):
        value = args[position] if position < len(args) else kwargs.get(declared.name)
        changed = declared.alias_info is not None and declared.alias_info.is_write
        for tensor in tensors(value):
            if changed:
                written[key(tensor)] = _touched(tensor)
            if name not in SHAPE and not (changed and name in OVERWRITE):
                gathered = name in GATHER and position == 0
                read[key(tensor)] = sum(map(_touched, results)) if gathered else _touched(tensor)
    written.update((key(tensor), _touched(tensor)) for tensor in results)
    return sum(read.values()) + sum(written.values())


def _lstm_flops(args: Any) -> int:
    """Two for each multiplication of the matrices, of every step of time and layer."""
    steps_and_sequences = args[0].shape[0] * args[0].shape[1]
    return 2 * steps_and_sequences * sum(each.numel() for each in args[1] if each.dim() == 2)


LSTM_FLOPS: Mapping[str, Callable[[Any], int]] = {
    "_cudnn_rnn": _lstm_flops,
    "_cudnn_rnn_backward": lambda args: 2 * _lstm_flops(args),
}
