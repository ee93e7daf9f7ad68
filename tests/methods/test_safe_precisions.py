"""What is safe is measured: how far TF32 and bf16 move the predictions of a trained network, method by method.

The safe precisions that a method declares are those that move its predictions by no more than ``THRESHOLD`` of the
spread between spots, nor of the effect of exchanging the patches. TF32 is emulated, as tests run without a GPU; see
``benchmarks/precision.py``, which makes the table of the documentation from real sections.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from stbench import registry
from stbench.method import Run
from stbench.system.precision import PRECISIONS, tf32_flags
from stbench.training.precision import safe_precisions

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from precision import METHODS, EmulatedTF32, Moved, moved, rounded, trained

THRESHOLD = 0.05
every_method = pytest.mark.parametrize("name", METHODS)
# networks of every part, small enough for seconds; enough steps that spots differ by what was learnt from patches
SMALL: dict[str, dict[str, Any]] = {
    "stnet": {"input_px": 32, "epochs": 3},
    "histogene": {"width": 64, "heads": 2, "input_px": 8, "epochs": 30},
    "hist2st": {"channels": 8, "heads": 2, "input_px": 14, "epochs": 30},
    "thitogene": {
        "n_layers": 1, "heads": 2, "mlp_width": 64, "capsules": 4, "capsule_width": 16, "graph_heads": 2,
        "graph_widths": (16, 32), "epochs": 3,
    },
    "bleep": {"input_px": 32, "n_dimensions": 64, "batch_size": 40, "epochs": 4},
    "mclstexp": {"input_px": 32, "n_dimensions": 64, "batch_size": 40, "epochs": 4},
}  # fmt: skip
SPOTS = {"hist2st": 20, "bleep": 60, "mclstexp": 60}  # of a slide, where twelve do not do: keys to choose from, a graph


def require_within(found: Moved, name: str) -> None:
    shares = {precision: found.shares[precision] for precision in safe_precisions(registry.method(name))}
    assert {p: s for p, s in shares.items() if max(s.of_spread, s.of_exchange) > THRESHOLD} == {}, found


@every_method
def test_declared_precisions_are_safe_on_small_networks(name, make_training_slides, hide_expression):
    *train, test = make_training_slides(n_slides=3, n_spots=SPOTS.get(name, 12))
    epochs = SMALL[name]["epochs"]
    method = trained(name, train, epochs, "quick", **{k: v for k, v in SMALL[name].items() if k != "epochs"})
    found = moved(method, hide_expression(test))
    assert found.shares["bf16"].of_spread > 0  # bf16 was at work
    require_within(found, name)


@pytest.mark.slow
@every_method
def test_declared_precisions_are_safe_at_published_size(name, make_training_slides, hide_expression):
    *train, test = make_training_slides(n_slides=4, n_spots=32, n_genes=785, side=224)
    require_within(moved(trained(name, train, 3), hide_expression(test)), name)


@every_method
def test_bf16_trains_what_float32_predicts_alike(name, make_training_slides, hide_expression):
    """A network trained in bf16 is finite, its weights stay in float32, and its predictions are."""
    *train, test = make_training_slides(n_slides=2, n_spots=12)
    fields = {key: value for key, value in SMALL[name].items() if key != "epochs"}
    method = trained(name, train, 1, "quick", **fields)
    method.fit(train, Run(precision="bf16"))
    assert all(np.isfinite(row["loss"]) for row in method.history)
    assert method.predict(hide_expression(test)).dtype == np.float32
    assert all(value.dtype != torch.bfloat16 for value in method.trained.state_dict().values())


def test_spots_stay_apart_in_stnets_head(make_training_slides, hide_expression):
    """Its head starts at zero weights and the genes' means: in bf16 three of four genes had one value after ten."""
    *train, test = make_training_slides(n_slides=2, n_spots=32)
    method = trained("stnet", train, 10, "quick", lr=1e-6, optimiser="sgd", loss_reduction="sum_spots", input_px=32)
    method.precision = "bf16"
    prediction = method.predict(hide_expression(test))
    assert [len(set(gene)) for gene in prediction.T] == [32] * prediction.shape[1]


# The emulation --------------------------------------------------------------------------------------------------------


def test_rounding_is_to_the_nearest_of_ten_bits_ties_to_even():
    one = 2.0**-10  # the last bit of a TF32 number in [1, 2)
    given = torch.tensor([1.0, 1 + one / 2, 1 + 3 * one / 2, 1 + 0.51 * one, -1 - 0.49 * one, 0.0, 3.0, torch.inf])
    wanted = torch.tensor([1.0, 1.0, 1 + 2 * one, 1 + one, -1.0, 0.0, 3.0, torch.inf])
    assert torch.equal(rounded(given), wanted)
    random = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert ((rounded(random) - random).abs() <= random.abs() * 2**-11).all()
    assert torch.equal(rounded(rounded(random)), rounded(random))


def operations(seed: int = 0) -> dict[str, torch.Tensor]:
    """Everything that tensor cores would be asked for, by how it is written."""
    generator = torch.Generator().manual_seed(seed)
    a, images = (torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 8), (2, 3, 8, 8)))
    kernel = torch.randn((4, 3, 3, 3), generator=generator)
    lstm = torch.nn.LSTM(8, 8)
    for weight in lstm.parameters():
        torch.nn.init.uniform_(weight, generator=generator)
    return {
        "product": a[0, 0] @ a[0, 1],
        "batched": a[0] @ a[1],
        "einsum": torch.einsum("nij,njk->nik", a[0], a[1]),
        "linear": F.linear(a[0], a[1, 0], a[1, 1, 0]),
        "attention": F.scaled_dot_product_attention(a, a, a),
        "convolution": F.conv2d(images, kernel),
        "lstm": lstm(a[0])[0],
    }


def test_the_emulation_reaches_every_operation_that_the_flags_name():
    with torch.no_grad():
        exact = operations()
        for precision, changed in (("fp32", {"convolution", "lstm"}), ("tf32", set(exact))):
            with tf32_flags(precision), EmulatedTF32():
                found = operations()
            assert {name for name in exact if not torch.equal(found[name], exact[name])} == changed
            for name, value in found.items():
                torch.testing.assert_close(value, exact[name], rtol=1e-2, atol=2e-2)
    assert torch.equal(operations()["product"], exact["product"])


def test_the_emulation_rounds_operands_and_sums_in_float32():
    a, b = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(1))
    with tf32_flags("tf32"), EmulatedTF32():
        found = a @ b
    torch.testing.assert_close(found.double(), rounded(a).double() @ rounded(b).double(), rtol=0, atol=1e-5)


def test_the_emulation_refuses_what_it_cannot_look_into():
    with torch.inference_mode(), EmulatedTF32(), pytest.raises(RuntimeError, match="emulate TF32 under no_grad"):
        torch.einsum("ij,jk->ik", torch.ones(2, 2), torch.ones(2, 2))


def test_every_precision_is_measured_for_every_method_of_the_paper():
    assert set(METHODS) == {name for name in registry.expand_methods("published")}
    assert set(PRECISIONS) == {"fp32", "tf32", "bf16"}
