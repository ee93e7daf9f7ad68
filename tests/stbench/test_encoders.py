"""Image encoders: which library's they are, whose weights they hold, and what is said when these cannot be had."""

from __future__ import annotations

import hashlib
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from stbench.errors import UserError
from stbench.method import Run
from stbench.training import encoders, pretrained
from stbench.training.encoders import build_encoder, load_weights, read_weights, require_encoders, weights_label


@pytest.fixture
def donor() -> torchvision.models.ResNet:
    """A ResNet-18 with a classifier, whose weights stand for published ones."""
    torch.manual_seed(11)
    return torchvision.models.resnet18()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def pooled(model: torchvision.models.ResNet, images: torch.Tensor) -> torch.Tensor:
    """What torchvision's own forward hands to its classifier."""
    handed: list[torch.Tensor] = []
    handle = model.fc.register_forward_pre_hook(lambda _, inputs: handed.append(inputs[0]))
    with torch.no_grad():
        model.eval()(images)
    handle.remove()
    return handed[0]


def features(module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(images)


# Networks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n_features"), [("densenet121", 1024), ("resnet18", 512), ("resnet34", 512)])
def test_plain_names_are_torchvisions_without_their_classifier(name, n_features, images):
    encoder = build_encoder(name)
    own = getattr(torchvision.models, name)()
    kept = [key for key in own.state_dict() if not key.startswith(("fc.", "classifier."))]
    assert list(encoder.module.state_dict()) == kept
    assert encoder.n_features == n_features
    assert features(encoder.module, images).shape == (2, n_features)


def test_every_other_name_is_timms(images):
    encoder = build_encoder("resnet10t")
    assert list(encoder.module.state_dict()) == list(timm.create_model("resnet10t", num_classes=0).state_dict())
    assert features(encoder.module, images).shape == (2, encoder.n_features)


def test_a_vit_may_average_its_patch_tokens_and_takes_the_same_file(tmp_path):
    """Table S5's ViT: the mean over patch tokens before the last norm, whose weights a file keeps under ``norm``."""
    torch.manual_seed(5)
    donor = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True).eval()
    for parameter in donor.parameters():  # so that the norm's weights matter too
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save(donor.state_dict(), tmp_path / "vit.pth")
    encoder = build_encoder("test_vit", str(tmp_path / "vit.pth"), pooling="average")
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        tokens = donor.norm.forward  # applied after the mean, not before
        unnormed = torch.nn.Sequential(*donor.blocks)(
            donor.norm_pre(donor.patch_drop(donor._pos_embed(donor.patch_embed(images))))
        )
        expected = tokens(unnormed[:, donor.num_prefix_tokens :].mean(dim=1))
    torch.testing.assert_close(features(encoder.module, images), expected, atol=1e-5, rtol=1e-4)
    native = build_encoder("test_vit", str(tmp_path / "vit.pth")).module
    assert not torch.allclose(features(native, images), expected, atol=1e-2)


def test_published_weights_of_a_vit_fit_it_when_it_averages(monkeypatch):
    donor = timm.create_model("test_vit", num_classes=0)
    monkeypatch.setattr(encoders, "_published", lambda name: donor.state_dict())
    module = build_encoder("test_vit", "imagenet", pooling="average").module
    assert torch.equal(module.fc_norm.weight, donor.norm.weight)


@pytest.mark.parametrize("name", ["test_resnet", "densenet121"])
def test_networks_that_average_anyway_are_the_same_under_either_pooling(name):
    states = []
    for pooling in ("native", "average"):
        torch.manual_seed(2)
        states.append(features(build_encoder(name, pooling=pooling).module, torch.ones(1, 3, 64, 64)))
    assert torch.equal(*states)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="unknown encoder 'resnet81' - did you mean 'resnet18'"):
        build_encoder("resnet81")


def test_random_weights_follow_torchs_seed_and_are_labelled_and_noted():
    run = Run()
    torch.manual_seed(0)
    one = build_encoder("resnet18", "random", run)
    torch.manual_seed(0)
    same = build_encoder("resnet18")
    other = build_encoder("resnet18")
    weights = [encoder.module.conv1.weight for encoder in (one, same, other)]  # type: ignore[union-attr]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert one.label == "random"
    assert len(run.notes) == 1
    assert "random weights" in run.notes[0]


def test_labels_name_the_published_file():
    assert weights_label("densenet121", "imagenet") == "imagenet (densenet121-a639ec97)"
    assert weights_label("resnet50", "imagenet") == "imagenet (resnet50-0676ba61)"
    assert weights_label("resnet50.a1_in1k", "imagenet") == "imagenet (resnet50.a1_in1k)"
    assert weights_label("resnet50", "random") == "random"


def test_a_timm_name_without_published_weights_is_refused():
    without = next(name for name in timm.list_models() if not timm.get_pretrained_cfg(name).has_weights)
    with pytest.raises(UserError, match=f"timm has no pretrained weights for {without}"):
        weights_label(without, "imagenet")


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "image_encoder.model.", "module.pre."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_file_whatever_stands_before_their_names(donor, images, tmp_path, prefix, suffix):
    path = tmp_path / f"mine{suffix}"
    state = {prefix + key: value for key, value in donor.state_dict().items()}
    if prefix == "image_encoder.model.":  # a whole method's checkpoint
        state |= {"image_projection.fc.weight": torch.zeros(3, 3), "temperature": torch.ones(1)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    encoder = build_encoder("resnet18", str(path))
    assert torch.equal(features(encoder.module, images), pooled(donor, images))
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    assert encoder.label == f"file ({path.name} {digest[:8]})" == weights_label("resnet18", str(path))


@pytest.mark.parametrize("entry", ["state_dict", "model"])
def test_a_checkpoints_weights_are_found_beside_its_optimisers_state(donor, images, tmp_path, entry):
    torch.save({entry: donor.state_dict(), "optim": {"lr": 1e-3}, "epoch": 3}, tmp_path / "c.pth")
    module = build_encoder("resnet18", str(tmp_path / "c.pth")).module
    assert torch.equal(features(module, images), pooled(donor, images))


@pytest.mark.parametrize("form", ["published", "features alone", "current"])
def test_a_densenet_file_in_any_of_its_forms_is_read(tmp_path, images, form):
    """torchvision's published file says ``denselayer1.norm.1.weight`` and has no batch counters."""
    torch.manual_seed(2)
    donor = torchvision.models.densenet121()
    state = dict(donor.state_dict())
    if form == "published":
        state = {
            key.replace(".norm1.", ".norm.1.")
            .replace(".norm2.", ".norm.2.")
            .replace(".conv1.", ".conv.1.")
            .replace(".conv2.", ".conv.2."): value
            for key, value in state.items()
            if not key.endswith("num_batches_tracked")
        }
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    if form == "features alone":
        state = donor.features.state_dict()
    torch.save(state, tmp_path / "d.pth")
    module = build_encoder("densenet121", str(tmp_path / "d.pth")).module
    for key, value in donor.features.state_dict().items():
        assert torch.equal(module.state_dict()[f"features.{key}"], value)


def test_missing_superfluous_or_misshapen_entries_are_refused_in_one_line(donor, tmp_path):
    def refused(state: dict[str, torch.Tensor]) -> str:
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(UserError, match="does not hold the weights of resnet18") as caught:
            build_encoder("resnet18", str(tmp_path / "w.pth"))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    state = dict(donor.state_dict())
    assert "layer4.1.bn2.weight" in refused({k: v for k, v in state.items() if k != "layer4.1.bn2.weight"})
    assert "layer9" in refused(state | {"layer9.weight": torch.zeros(1)})
    assert "size mismatch" in refused(state | {"conv1.weight": torch.zeros(64, 3, 3, 3)})
    assert "no entry is named conv1.weight" in refused({"something.else": torch.zeros(1)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no weights file"),
        (b"", r"is empty \(0 bytes\)"),
        (b"<html>not found</html>", "cannot read weights"),
        ("pickle", "cannot read weights"),
        ("list", "holds no state dict"),
        ("numbers", "holds no state dict"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_hold_no_weights_are_refused_in_one_line(tmp_path, content, message, suffix):
    path = tmp_path / f"w{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        if suffix == ".safetensors":
            pytest.skip("safetensors cannot hold anything else")
        torch.save({"pickle": SimpleNamespace(a=1), "list": [1, 2], "numbers": {"lr": 1.0}}[content], path)
    with pytest.raises(UserError, match=message) as caught:
        build_encoder("resnet18", str(path))
    assert "\n" not in str(caught.value)


def test_pickled_code_is_never_run(tmp_path):
    class Malice:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was_here",))

    torch.save({"conv1.weight": Malice()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="cannot read weights"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "was_here").exists()


# Downloads ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path, monkeypatch, donor) -> Iterator[SimpleNamespace]:
    """A server on this machine that has ResNet-18's published file, which is ``donor``'s weights here."""
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save(donor.state_dict(), folder / "weights")
    content = (folder / "weights").read_bytes()
    name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / "weights").rename(folder / name)
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, directory=str(folder), **options)

        def log_message(self, *_):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for proxy in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    url = f"http://127.0.0.1:{server.server_address[1]}/{name}"

    monkeypatch.setitem(pretrained.TORCHVISION, "resnet18", url)
    yield SimpleNamespace(file=folder / name, asked=asked, cache=tmp_path / "torch" / "hub" / "checkpoints" / name)
    server.shutdown()
    server.server_close()


def test_published_weights_are_downloaded_once_and_loaded(mirror, donor, images):
    encoder = build_encoder("resnet18", "imagenet")
    assert torch.equal(features(encoder.module, images), pooled(donor, images))
    assert encoder.label == f"imagenet ({mirror.file.stem})"
    build_encoder("resnet18", "imagenet")
    assert len(mirror.asked) == 1


def test_a_download_that_is_not_the_published_file_is_refused(mirror):
    mirror.file.write_bytes(mirror.file.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="invalid hash value") as caught:
        build_encoder("resnet18", "imagenet")
    assert "\n" not in str(caught.value)
    assert not mirror.cache.exists()


def test_a_damaged_file_in_the_cache_is_named(mirror):
    mirror.cache.parent.mkdir(parents=True)
    mirror.cache.write_bytes(b"half a file")
    with pytest.raises(UserError, match="are damaged") as caught:
        build_encoder("resnet18", "imagenet")
    assert str(mirror.cache.parent) in str(caught.value)


def test_a_failed_download_says_which_file_and_what_to_do_instead(mirror):
    mirror.file.unlink()
    with pytest.raises(UserError) as caught:
        build_encoder("resnet18", "imagenet")
    message = str(caught.value)
    assert message.startswith(f"the pretrained weights {mirror.file.name} could not be downloaded (HTTP Error 404")
    assert f"/{mirror.file.name}" in message
    assert "--weights PATH, or use --weights random, which labels every number" in message
    assert "\n" not in message


@pytest.fixture
def nobody(tmp_path, monkeypatch) -> Iterator[Callable[[bool], str]]:
    """``nobody(silent)``: the address of a server that is not there, or that takes a call and never answers."""
    for proxy in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    listening = socket.create_server(("127.0.0.1", 0))
    free = socket.create_server(("127.0.0.1", 0))
    closed_port = free.getsockname()[1]
    free.close()

    def address(silent: bool) -> str:
        return f"http://127.0.0.1:{listening.getsockname()[1] if silent else closed_port}"

    def serve(at: str) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", at)
        for name in ("resnet18", "densenet121"):
            monkeypatch.setitem(pretrained.TORCHVISION, name, f"{at}/{name}-01234567.pth")
        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("tried"))

    yield lambda silent: serve(address(silent)) or address(silent)
    listening.close()


@pytest.mark.parametrize("silent", [False, True])
def test_all_weights_that_are_out_of_reach_are_told_at_once_in_one_line(nobody, monkeypatch, silent, capfd):
    monkeypatch.setattr(pretrained, "ANSWER_S", 0.5)
    at = nobody(silent)
    started = time.monotonic()
    wanted = [("resnet18", "imagenet"), ("resnet18", "random"), ("densenet121", "imagenet"), ("resnet10t", "imagenet")]
    with pytest.raises(UserError) as caught:
        require_encoders([*wanted, *wanted])
    assert time.monotonic() - started < 5
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(
        f"pretrained weights could not be downloaded (no answer from {at.removeprefix('http://')}"
    )
    for file in ("resnet18-01234567.pth", "densenet121-01234567.pth", "resnet10t.c3_in1k"):
        assert message.count(f"{file} ({at}") == 1
    assert capfd.readouterr().err == ""  # no retries are told


def test_the_pinned_addresses_and_names_are_the_libraries_own():
    for name, address in pretrained.TORCHVISION.items():
        assert address == torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
        assert hasattr(getattr(torchvision.models, name)(), encoders.CLASSIFIER.get(name, "fc"))
    assert timm.is_model(pretrained.SMALLEST)
    for name in pretrained.TIMM:
        configuration = timm.get_pretrained_cfg(name, allow_unregistered=False)
        assert (configuration.hf_hub_id, configuration.hf_hub_filename) == (f"timm/{name}", None)
        assert f"{configuration.architecture}.{configuration.tag}" == name


def test_one_that_is_out_of_reach_is_told_as_when_it_is_loaded(nobody):
    at = nobody(False)
    with pytest.raises(UserError) as caught:
        require_encoders([("resnet18", "imagenet")])
    assert str(caught.value).startswith(
        "the pretrained weights resnet18-01234567.pth could not be downloaded (no answer"
    )
    assert f"get it from {at}/resnet18-01234567.pth and give it with --weights PATH" in str(caught.value)


def test_every_wrong_name_and_file_is_told_before_any_server_is_asked(nobody, monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "_answer", lambda url: pytest.fail(f"{url} was asked"))
    nobody(False)
    with pytest.raises(UserError) as caught:
        require_encoders(
            [
                ("resnet18", "imagenet"),
                ("resnet99", "random"),
                ("resnet18", str(tmp_path / "a.pth")),
                ("resnet34", "b.pth"),
            ]
        )
    message = str(caught.value)
    assert message.startswith("3 encoders cannot be had: unknown encoder 'resnet99'")
    assert "a.pth" in message
    assert "b.pth" in message
    assert "\n" not in message


def test_each_distinct_encoder_whose_weights_are_asked_for_is_built_once(monkeypatch, tmp_path):
    built: list[tuple[str, str]] = []
    monkeypatch.setattr(encoders, "build_encoder", lambda name, weights: built.append((name, weights)))
    file = tmp_path / "own.pth"
    file.write_bytes(b"weights")
    require_encoders([("resnet18", str(file))] * 3 + [("resnet34", str(file)), ("resnet34", "random")])
    assert built == [("resnet18", str(file)), ("resnet34", str(file))]


def test_that_encoders_with_random_weights_can_be_had_is_known_without_the_libraries_that_build_them():
    program = (
        "import sys; from stbench.training.encoders import require_encoders;"
        "require_encoders([('test_resnet', 'random'), ('resnet18', 'random'), ('uni', 'random')]);"
        "sys.exit(1 if {'timm', 'torchvision'} & sys.modules.keys() else 0)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_weights_in_the_hubs_cache_are_loaded_without_asking_anybody(nobody, tmp_path, images):
    nobody(False)
    donor = timm.create_model("resnet10t", pretrained=False)
    snapshot = tmp_path / "hub" / "models--timm--resnet10t.c3_in1k" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    save_file(donor.state_dict(), snapshot / "model.safetensors")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123")
    require_encoders([("resnet10t", "imagenet")])
    encoder = build_encoder("resnet10t", "imagenet")
    donor.reset_classifier(0)
    assert torch.equal(features(encoder.module, images), features(donor, images))


def test_without_a_network_timms_weights_fail_with_the_same_line(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"the pretrained weights resnet10t\.c3_in1k could not be downloaded") as caught:
        load_weights(build_encoder("resnet10t").module, "resnet10t", "imagenet")
    assert "--weights random" in str(caught.value)
    assert "\n" not in str(caught.value)
