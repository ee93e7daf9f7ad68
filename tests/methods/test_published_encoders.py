"""Methods with a published encoder in them: its number of features fits, and what is not as it was trained is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stbench import registry
from stbench.errors import UserError
from stbench.method import Run, TrainingSlide, configure
from stbench.methods import controls
from stbench.methods.layers import frozen_features
from stbench.methods.stnet import parts_of
from stbench.training.encoder_input import own_input
from stbench.training.encoders import IMAGENET_MEAN, IMAGENET_STD, build_encoder
from stbench.training.foundation import table
from stbench.training.foundation.build import build
from stbench.training.foundation.table import published_encoders

ROWS = published_encoders()
NARROW = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 56}


@pytest.fixture
def virchow2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A narrow relative of Virchow2 in its place, and its file: class token and mean make 48 features of 24."""
    row = ROWS["virchow2"]
    row = row.model_copy(update={"arguments": {**row.arguments, **NARROW}})
    monkeypatch.setattr(table, "published_encoders", lambda: {**ROWS, "virchow2": row})
    torch.manual_seed(3)
    torch.save(build(row)[0].trunk.state_dict(), tmp_path / "virchow2.bin")  # type: ignore[operator,union-attr]
    return tmp_path / "virchow2.bin"


@pytest.mark.parametrize(("name", "setting"), [("stnet", "norm"), ("bleep", "pixels"), ("mclstexp", "pixels")])
def test_methods_are_trained_with_it_keep_their_own_scaling_and_say_so(
    name: str, setting: str, virchow2: Path, make_training_slides: Callable[..., list[TrainingSlide]], tmp_path: Path
) -> None:
    slides = make_training_slides(2, n_spots=12, side=56)
    method = registry.method(name)
    changes: dict[str, Any] = {"encoder": "virchow2", "weights": str(virchow2), "input_px": 56, "epochs": 1}
    run = Run(seed=1)
    made: Any = method(configure(method, "quick", changes=changes | {"batch_size": 6}))
    made.fit(slides, run)
    assert made.weights_label.startswith("virchow2 (virchow2.bin ")
    prediction = made.predict(slides[0])
    assert np.isfinite(prediction).all()
    (note,) = [note for note in run.notes if "as it was trained" in note]
    assert f"images have 56 px, not 224 px ({name}.input_px=224" in note
    assert (f"{name}.{setting}=encoder" in note) == (name != "bleep")  # BLEEP scales as for ImageNet, as Virchow2 was
    assert (f"({name}.pooling=native)" in note) == (name == "mclstexp")
    made.save(tmp_path)
    np.testing.assert_allclose(method.load(tmp_path).predict(slides[0]), prediction, rtol=1e-5, atol=1e-6)
    if setting == "norm":
        n_features = made.trained.head.in_features
    else:
        n_features = made.trained.image_projection.projection.in_features
    assert n_features == (24 if name == "mclstexp" else 48)


def test_stnet_and_the_contrastive_methods_take_the_encoders_scaling_where_it_is_asked_for() -> None:
    from stbench.methods.layers.pixels import encoder_input, scaling

    assert scaling("encoder", "kaiko-vits16") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert scaling("imagenet", "kaiko-vits16") == (IMAGENET_MEAN, IMAGENET_STD)
    patches = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    given = encoder_input(patches, "encoder", "none", None, "kaiko-vits16")
    torch.testing.assert_close(given, patches / 127.5 - 1)
    stnet: Any = registry.method("stnet")
    made = stnet(configure(stnet, "quick", changes={"encoder": "lunit-vits16", "norm": "encoder"}))
    mean, std = made._input_statistics(None, Run())
    assert (tuple(mean.tolist()), tuple(std.tolist())) == (
        pytest.approx(ROWS["lunit-vits16"].mean),
        pytest.approx(ROWS["lunit-vits16"].std),
    )


def test_parts_of_an_encoder_that_pools_its_own_way_are_its_trunks(virchow2: Path) -> None:
    wrapped = build_encoder("virchow2").module
    assert parts_of(wrapped) == parts_of(wrapped.trunk)  # type: ignore[arg-type]
    assert len(parts_of(wrapped)) > 1


def test_frozen_features_are_the_encoders_own(
    virchow2: Path, make_training_slides: Callable[..., list[TrainingSlide]]
) -> None:
    (slide,) = make_training_slides(1, n_spots=5, side=70)
    control: Any = controls.FeatureRidge(
        configure(controls.FeatureRidge, changes={"encoder": "virchow2", "weights": str(virchow2)})
    )
    control.start(Run())
    features = control.features(slide)
    assert features.shape == (5, 48)
    fed = own_input("virchow2")
    assert (fed.input_px, fed.interpolation) == (224, "bicubic")
    with torch.no_grad():
        expected = control.encoder(fed(torch.from_numpy(np.array(slide.patches)).permute(0, 3, 1, 2)))
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-3, atol=1e-4)


def test_an_encoder_that_takes_one_size_refuses_another_in_one_line() -> None:
    with pytest.raises(UserError, match="ctranspath takes images of 224 px, not of 64 px - set input_px to 224"):
        frozen_features.frozen_encoder("ctranspath", "random", 0, Run(), 64)
