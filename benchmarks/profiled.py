"""Where a training step's time goes: kernels, waits and launches of each method in the harness's loop, by the profiler.

    python benchmarks/profiled.py --out profile.json

Three epochs of a few made-up sections: the first pays for what is set up once, the second is timed as it is, the third
runs under torch's profiler, which makes the host slower and kernels hardly. The share of the time in which the GPU is
busy is therefore the kernels' time over that of the second epoch. On a CPU (``--tiny``) operators stand for kernels.
"""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import command
import gpu
import machine
import torch
from plain_step import METHODS, configured, made_up_slides
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from stbench.method import Run
from stbench.system.files import write_json

BATCHES = 4  # of an epoch, each a section: thousands of events a batch take the profiler seconds to sum up
TOP = 12  # kernels that are named
NAME_LENGTH = 100  # of a kernel's name, of which templates make a page
# what the host calls to wait for the device, to ask it for a value, to issue a kernel
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
# kinds of kernels by what their names contain, the first that fits
KINDS: Mapping[str, Sequence[str]] = {
    "copies": ("memcpy", "memset"),
    "optimiser": ("multi_tensor", "fused_adam", "_fused_"),
    "LSTM": ("rnn", "lstm"),
    "attention": ("attention", "fmha", "flash"),
    "normalisation": ("batch_norm", "batchnorm", "bn_fw", "bn_bw", "layer_norm", "layernorm"),
    "convolutions": ("conv2d", "convolution", "wgrad", "dgrad", "fprop", "winograd", "implicit", "cudnn"),
    "matrix products": ("gemm", "gemv", "cutlass", "matmul", "addmm", "::mm", "bmm", "splitk"),
    "concatenation": ("catarray", "::cat"),
    "reductions": ("reduce", "softmax", "::sum", "::mean"),
    "indexing": ("index", "gather", "scatter", "embedding"),
    "pooling": ("pool",),
}
ELEMENTWISE = "elementwise and others"


def kind_of(kernel: str) -> str:
    name = kernel.lower()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), ELEMENTWISE)


def profiled(name: str, size: gpu.Size, device: str) -> dict[str, Any]:
    """Of a batch: milliseconds of the GPU by kind of kernel and by kernel, kernels, launches; waits of the epoch."""
    on_gpu = device.startswith("cuda")
    method = configured(name, size.preset, {**size.changes, "epochs": 3})
    n_spots = size.n_spots if method.batching == "slides" else method.batch_size
    slides = made_up_slides(BATCHES, n_spots, size.n_genes, size.side)
    profiler = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])])

    def after(epoch: int, values: Mapping[str, float]) -> None:  # when nothing is left to do
        if epoch == 2:
            profiler.start()
        elif epoch == 3:
            profiler.stop()

    method.fit(slides, Run(device=device, on_log=after))
    return summed(profiler.key_averages(), on_gpu, method.history[1]["seconds"])


def summed(events: Sequence[Any], on_gpu: bool, seconds: float) -> dict[str, Any]:
    """What the profiler saw of an epoch that takes ``seconds`` without it, of a batch. ``RuntimeError``: no kernel."""
    if on_gpu:  # annotations span kernels that are counted already
        kernels = [event for event in events if event.device_type == DeviceType.CUDA and not _annotates(event)]
    else:
        kernels = [event for event in events if event.key.startswith("aten::")]
    if not kernels:
        raise RuntimeError("the profiler saw no kernel: CUPTI cannot be loaded, or may not be used here")

    def busy_us(event: Any) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)

    kinds: Counter[str] = Counter()
    for event in kernels:
        kinds[kind_of(event.key)] += busy_us(event)
    total = sum(kinds.values())
    top = sorted(kernels, key=busy_us, reverse=True)[:TOP]
    return {
        "batches": BATCHES,
        "batch_s": seconds / BATCHES,
        "busy": total / 1e6 / seconds,
        "kernels": sum(event.count for event in kernels) / BATCHES,
        "launches": sum(event.count for event in events if event.key in LAUNCHES) / BATCHES,
        "waits_in_epoch": {event.key: event.count for event in events if event.key in WAITS},
        "ms_by_kind": {kind: us / 1e3 / BATCHES for kind, us in kinds.most_common()},
        "top": [[event.key[:NAME_LENGTH], busy_us(event) / 1e3 / BATCHES, event.count / BATCHES] for event in top],
    }


def _annotates(event: Any) -> bool:
    return bool(getattr(event, "is_user_annotation", False))  # older torch has no annotations among its kernels


def main(words: Sequence[str] | None = None) -> None:
    names: tuple[str, dict[str, Any]] = ("--methods", {"default": ",".join(METHODS), "help": "names with commas"})
    options = command.part_options(__doc__, words, names)
    size = gpu.TINY if options.tiny else gpu.HER2ST
    out: dict[str, Any] = {**machine.facts(options.device), "meaningless": options.tiny, "methods": {}}
    for name in command.methods_named(options.methods, METHODS):
        try:
            out["methods"][name] = profiled(name, size, options.device)
        except RuntimeError as error:  # one method's: memory that ran out, say
            traceback.print_exc()
            out["methods"][name] = {"error": " ".join(str(error).split())[:400]}
        write_json(options.out, out)
        print(name, json.dumps(out["methods"][name])[:400], flush=True)
        if options.device.startswith("cuda"):
            torch.cuda.empty_cache()


if __name__ == "__main__":
    command.end(main)
