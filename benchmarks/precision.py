"""How far TF32 and bf16 move what the methods predict, measured on a CPU: one command, a table for people.

    python benchmarks/precision.py --spots 64 --epochs 3    # HER2+ sections, found by STBENCH_DATA
    python benchmarks/precision.py --device cuda --made-up --out precision.json    # a card's own TF32 and bf16; no data

Every method is trained in float32 at its published settings, on a few spots of a few sections; the same network then
predicts another section in every precision. bf16 is computed as autocast has it. TF32 is emulated: the operands of
matrix products and convolutions are rounded to the ten bits of mantissa that the tensor cores take, and summed in
float32 as they do. The emulation looks at torch's own flags, so that what a method keeps in float32 stays in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import machine
import numpy as np

import stbench  # noqa: F401 - before torch, which reads then how its threads are to wait

# isort: split

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stbench import registry
from stbench.method import Run, TestSlide, TrainingSlide, configure
from stbench.method_checks.subject import red_slide
from stbench.system import precision as harness_precision
from stbench.system.files import write_json
from stbench.system.precision import Precision
from stbench.torch_method import TorchMethod
from stbench.training.device import resolve_device

METHODS = ("stnet", "histogene", "hist2st", "thitogene", "bleep", "mclstexp")
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")  # fp32: with TF32 convolutions, as on a GPU


@dataclass(frozen=True)
class Shares:
    """Root mean square error against float32, of mean over genes, as a share of what the error may drown."""

    of_spread: float  # of the standard deviation between spots
    of_exchange: float  # of how far exchanging the patches between spots moves the prediction


@dataclass(frozen=True)
class Moved:
    """What each precision does to one method's predictions of one section."""

    spread: float  # standard deviation between spots, mean over genes, on the target's scale
    exchange: float  # how far exchanging the patches moves the prediction, as a share of the spread
    shares: Mapping[Precision, Shares]


def moved(method: TorchMethod, slide: TestSlide, precisions: Iterable[Precision] = PRECISIONS) -> Moved:
    """Predict ``slide`` in full float32, with its patches exchanged, and in each of ``precisions``."""
    exact = predict(method, slide, None)
    exchanged = predict(method, dataclasses.replace(slide, patches=np.ascontiguousarray(slide.patches[::-1])), None)
    spread, exchange = float(exact.std(axis=0).mean()), _distance(exchanged, exact)
    shares: dict[Precision, Shares] = {}
    for precision in precisions:
        error = _distance(predict(method, slide, precision), exact)
        shares[precision] = Shares(error / spread, error / exchange)
    return Moved(spread, exchange / spread, shares)


def predict(method: TorchMethod, slide: TestSlide, precision: Precision | None) -> np.ndarray:
    """The prediction as an Ampere GPU would compute it in ``precision``; ``None``: in float32 throughout.

    On a GPU, as this one does.
    """
    trained_in, method.precision = method.precision, precision or "fp32"
    try:
        if next(method.trained.parameters()).device.type == "cuda":  # type: ignore[union-attr]
            allowed = harness_precision.tf32_allowed if precision else (lambda _: ())
            with patch.object(harness_precision, "tf32_allowed", allowed):
                return method.predict(slide)
        if precision is None:
            return method.predict(slide)
        # under inference mode compound operators reach the emulation whole, and autocast does not look into them
        with patch.object(torch, "inference_mode", torch.no_grad), EmulatedTF32():
            return method.predict(slide)
    finally:
        method.precision = trained_in


def _distance(prediction: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.square(prediction - other, dtype=np.float64).mean(axis=0)).mean())


def rounded(value: Any) -> Any:
    """A float32 tensor to the nearest TF32 values, ties to even; whatever else is handed in, as it is."""
    if not (isinstance(value, Tensor) and value.dtype == torch.float32):
        return value
    bits = value.contiguous().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class EmulatedTF32(TorchDispatchMode):
    """Inside, float32 matrix products and convolutions on a CPU compute as on the tensor cores, where torch's flags
    for a GPU allow it. ``seen`` collects the operators that were rounded.
    """

    # operator to the places of its operands; a bias is added in float32
    PRODUCTS: Mapping[str, Sequence[int]] = {
        "mm": (0, 1),
        "bmm": (0, 1),
        "addmm": (1, 2),
        "baddbmm": (1, 2),
        "addbmm": (1, 2),
        "_scaled_dot_product_flash_attention_for_cpu": (0, 1, 2),
        "_scaled_dot_product_attention_math": (0, 1, 2),
    }
    CONVOLUTIONS: Mapping[str, Sequence[int]] = {
        "convolution": (0, 1),
        # on a GPU cuDNN's LSTM, which the flag of the convolutions governs too; states within it cannot be reached
        "mkldnn_rnn_layer": (0, 1, 2, 5),
    }
    COMPOUND = ("linear", "matmul", "einsum", "conv2d", "lstm", "scaled_dot_product_attention")

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._overloadpacket.__name__
        if name in self.COMPOUND:
            raise RuntimeError(f"{name} cannot be looked into under inference mode: emulate TF32 under no_grad")
        operands = self.PRODUCTS.get(name, ()) or self.CONVOLUTIONS.get(name, ())
        flags = torch.backends.cuda.matmul if name in self.PRODUCTS else torch.backends.cudnn
        if not operands or not flags.allow_tf32:
            return func(*args, **kwargs)
        self.seen.add(name)
        changed = list(args)
        for i in operands:
            changed[i] = [rounded(one) for one in args[i]] if isinstance(args[i], list | tuple) else rounded(args[i])
        return func(*changed, **kwargs)


def first_spots(slide: Any, n: int) -> Any:
    """A slide with no more than its first ``n`` spots."""
    cut = {
        one.name: value[:n]
        for one in dataclasses.fields(slide)
        if isinstance(value := getattr(slide, one.name), np.ndarray)
    }
    return dataclasses.replace(slide, **cut)


def trained(
    name: str,
    slides: Sequence[TrainingSlide],
    epochs: int,
    preset: str = "published",
    device: str = "cpu",
    **changes: Any,
) -> TorchMethod:
    """The method after ``epochs`` in float32, from random weights, without a choice of the epoch.

    In batches of few spots: the published 128 of mclSTExp take 20 GB.
    """
    method = cast(type[TorchMethod], registry.method(name))
    fields = {"epochs": epochs, "weights": "random", "validation": "none", "batch_size": 16, "accumulate": 1} | changes
    own = {field: value for field, value in fields.items() if field in method.Config.model_fields}
    ready = method(configure(cast(Any, method), preset, "her2st", own))
    ready.fit(slides, Run(seed=1, device=device))
    return ready


def her2st(n_spots: int, held_out: str = "C2") -> tuple[list[TrainingSlide], TestSlide]:
    """Real sections, ``n_spots`` of each: those to learn from, and one to predict."""
    from stbench.data.prepare import prepare
    from stbench.system.locate import cache_root, data_root

    data = prepare(registry.dataset("her2st", data_root(None)), "spot-log10-cp10k", cache_root())
    learnt = [first_spots(slide.for_training(), n_spots) for name, slide in data.slides.items() if name != held_out]
    return learnt, first_spots(data.slides[held_out].for_test(), n_spots)


def made_up(n_spots: int, n_sections: int, n_genes: int, side: int) -> tuple[list[TrainingSlide], TestSlide]:
    """Sections whose first gene follows the redness of the patches, with the shapes of HER2+, and one to predict."""
    rng = np.random.default_rng(0)
    slides = [red_slide(f"S{i}", f"P{i}", n_spots, n_genes, side, rng) for i in range(n_sections + 1)]
    hidden = {field.name: getattr(slides[-1], field.name) for field in dataclasses.fields(TestSlide)}
    return slides[:-1], TestSlide(**hidden)


def row(name: str, found: Moved) -> str:
    cells = [name, f"{found.spread:.2g}", f"{found.exchange:.3g}"]
    cells += [f"{share.of_spread:.2g} / {share.of_exchange:.2g}" for share in found.shares.values()]
    return f"| {' | '.join(cells)} |"


def main(words: Sequence[str] | None = None, say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--methods", default=",".join(METHODS), help="names with commas (all six)")
    parser.add_argument("--spots", type=int, default=64, help="of a section (64)")
    parser.add_argument("--sections", type=int, default=4, help="to learn from (4)")
    parser.add_argument("--epochs", type=int, default=3, help="of training in float32 (3)")
    parser.add_argument("--device", default="cpu", help="cpu emulates a GPU's TF32; cuda has it (cpu)")
    parser.add_argument("--made-up", action="store_true", help="sections that need no data")
    parser.add_argument("--tiny", action="store_true", help="quick presets on tiny sections: does the script work?")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args(words)
    device, preset = resolve_device(options.device), "quick" if options.tiny else "published"
    if options.tiny:
        learnt, test = made_up(12, 2, 8, 112)
    elif options.made_up:
        learnt, test = made_up(options.spots, options.sections, 785, 224)
    else:
        learnt, test = her2st(options.spots)
    out: dict[str, Any] = {
        **machine.facts(device),
        "emulated": device == "cpu",
        "meaningless": options.tiny,
        "methods": {},
    }
    say(f"torch {torch.__version__}, {os.cpu_count()} CPUs, {torch.backends.cpu.get_cpu_capability()}, {options}")
    say("| method | spread | exchanging patches | fp32 (TF32 convolutions) | tf32 | bf16 |")
    say("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in options.methods.split(","):
        started = time.perf_counter()
        found = moved(trained(name, learnt[: options.sections], options.epochs, preset, device), test)
        say(f"{row(name, found)} <!-- {time.perf_counter() - started:.0f} s -->")
        out.setdefault("methods", {})[name] = dataclasses.asdict(found)
        if options.out is not None:
            write_json(options.out, out)


if __name__ == "__main__":
    main()
