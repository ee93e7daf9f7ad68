"""Counts what a training step asks of a GPU: operations issued, floating-point operations, bytes moved, memory.

Nothing is computed: tensors are on torch's ``meta`` device, which knows shapes and no values. So a count is exact,
takes seconds at any size, and is the same on every machine; and it shows that nothing in a step waits for the device,
as what asks for a value cannot run. The methods take the paths that they take on a GPU. Where torch issues something
else there than for ``meta``, that is issued: one fused attention kernel each way (of rank-4 tensors alone), one cuDNN
call for an LSTM, one operation for dropout.

Not counted: what a library does inside of an operation, such as workspaces, layout changes or reading an operand twice.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
META = torch.device("meta")

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


class Count(TorchDispatchMode):
    """Counts while it is entered. ``operations`` says how often each was issued; ``peak_bytes`` is the most that was
    alive at a time, of memory that was taken while this was entered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[Operation] = Counter()
        self.live_bytes = self.peak_bytes = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet, name = func._overloadpacket, func._overloadpacket.__name__
        for tensor in _tensors(out):
            self._watch(tensor)
        if name not in NOTHING and func.namespace != "prim":
            flops = int(flop_registry[packet](*args, **kwargs, out_val=out)) if packet in flop_registry else 0
            flops = LSTM_FLOPS[name](args) if name in LSTM_FLOPS else flops
            self.operations[Operation(name, flops, _bytes_moved(func, name, args, kwargs, out))] += 1
        return out

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._seen:
            return
        self._seen.add(address)
        n_bytes = storage.nbytes()
        self.live_bytes += n_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, address, n_bytes)

    def _forget(self, address: int, n_bytes: int) -> None:
        self._seen.discard(address)
        self.live_bytes -= n_bytes


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _touched(tensor: Tensor) -> int:
    """Bytes: an expanded tensor has more elements than memory."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def _bytes_moved(func: Any, name: str, args: Any, kwargs: Any, out: Any) -> int:
    """Each operand read once, each result written once; a tensor that is changed in place is both."""
    read: dict[tuple[int, int, int], int] = {}
    written: dict[tuple[int, int, int], int] = {}

    def key(tensor: Tensor) -> tuple[int, int, int]:
        return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.numel()

    results = _tensors(out)
    for position, declared in enumerate(func._schema.arguments):
        value = args[position] if position < len(args) else kwargs.get(declared.name)
        changed = declared.alias_info is not None and declared.alias_info.is_write
        for tensor in _tensors(value):
            if changed:
                written[key(tensor)] = _touched(tensor)
            if name not in SHAPE and not (changed and name in OVERWRITE):
                gathered = name in GATHER and position == 0
                read[key(tensor)] = sum(map(_touched, results)) if gathered else _touched(tensor)
    written.update((key(tensor), _touched(tensor)) for tensor in results)
    return sum(read.values()) + sum(written.values())


# What a GPU is given in place of what ``meta`` is given ---------------------------------------------------------------


class AsOnGPU(TorchFunctionMode):
    """The operations that torch issues for CUDA tensors, where it chooses others for ``meta``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is scaled_dot_product_attention and args[0].dim() == 4 and len(args) == 3 and not kwargs:
            return aten._scaled_dot_product_efficient_attention(*args, None, True)[0]
        if name == "dropout" and args[0].is_meta:
            return _one_dropout(func, *args, **kwargs)
        if name == "lstm" and len(args) == 9 and args[0].is_meta:
            return _cudnn_lstm(*args)
        if func is Tensor.backward:
            with self:  # what is computed once more in it too
                return torch.autograd.backward(args[0])
        return func(*args, **kwargs)


def _one_dropout(func: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Draws and multiplies in one operation."""
    if training and 0 < p < 1 and not inplace:
        return aten.native_dropout(x, p, True)[0]
    return func(x, p, training, inplace)


def _cudnn_lstm(
    x: Tensor, state: Any, weights: Any, bias: bool, layers: int, dropout: float, train: bool, both: bool, first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    each, hidden = (4 if bias else 2), state[0].shape[-1]
    buffer = torch.empty(0, device=META)  # the weights once more, in one piece: they are that already
    options = (2, hidden, 0, layers, first, dropout, train, both, [], None)
    found = aten._cudnn_rnn(x, list(weights), each, buffer, state[0], state[1], *options)
    return found[0], found[1], found[2]


def _cudnn_backward(x: Tensor, weight: list[Tensor], stride: int, buffer: Any, hx: Tensor, cx: Any, *rest: Any) -> Any:
    """Shapes of the gradients: torch has none for ``meta``."""
    return (
        *(torch.empty_like(x), torch.empty_like(hx), torch.empty_like(cx)),
        [torch.empty_like(each) for each in weight],
    )


_library = torch.library.Library("aten", "IMPL")
_library.impl("_cudnn_rnn_backward", _cudnn_backward, "Meta")
_library.impl("_fused_sgd_", lambda *_, **__: None, "Meta")


def _lstm_flops(args: Any) -> int:
    """Two for each multiplication of the matrices, of every step of time and layer."""
    steps_and_sequences = args[0].shape[0] * args[0].shape[1]
    return 2 * steps_and_sequences * sum(each.numel() for each in args[1] if each.dim() == 2)


LSTM_FLOPS: Mapping[str, Callable[[Any], int]] = {
    "_cudnn_rnn": _lstm_flops,
    "_cudnn_rnn_backward": lambda args: 2 * _lstm_flops(args),
}


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Inside, ``meta`` tensors are given the operations of a GPU; fused optimisers and float32 autocast take them."""
    from torch.optim import optimizer

    supported, autocast = optimizer._get_fused_kernels_supported_devices, torch.autocast
    optimizer._get_fused_kernels_supported_devices = lambda: [*supported(), "meta"]
    torch.autocast = lambda device_type, **options: autocast(  # type: ignore[misc, assignment]
        "cpu" if device_type == "meta" else device_type, **options
    )
    try:
        with AsOnGPU():
            yield
    finally:
        optimizer._get_fused_kernels_supported_devices = supported
        torch.autocast = autocast  # type: ignore[misc]
