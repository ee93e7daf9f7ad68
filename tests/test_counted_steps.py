"""A step of every published method, counted: what the harness adds, what the package holds, and how counts compare."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import counted_steps
import roofline
from counted_step import Counts, Step, bare, harness
from counting import Operation
from plain_step import METHODS

from stbench.errors import UserError
from stbench.trials.cards import Operations, alike, read_cards
from stbench.trials.counted import CountedStep, read_steps

COUNT_AGAIN = "if that is meant, count again: python benchmarks/roofline.py --update --methods"
SIZES = ("--preset", "quick", "--spots", "40", "--genes", "20")


@pytest.fixture(scope="module")
def kept() -> dict[Step, CountedStep]:
    if counted_steps.torch_of(counted_steps.COUNTED) != counted_steps.TORCH:
        return {}  # another torch issues other operations
    return {counted_steps.step_of(step): step for step in read_steps(counted_steps.COUNTED)}


@pytest.mark.parametrize("name", METHODS)
def test_the_harness_adds_a_twentieth_to_a_published_step_at_most(name: str, kept: dict) -> None:
    step = counted_steps.typical(name, "published")
    ours, plain = harness(step), bare(step)
    assert ours.spots == plain.spots
    assert plain.n <= ours.n <= 1.05 * plain.n
    assert ours.n_bytes <= 1.05 * plain.n_bytes
    assert ours.flops == plain.flops
    assert ours.peak_bytes <= 1.05 * plain.peak_bytes
    assert any(operation.name.startswith("_fused_") for operation in ours.operations)
    found = counted_steps.counted_step(step, ours)
    same_as_each_operation(found, ours)
    if kept:
        assert roofline.changes(kept[step], found) == [], f"{COUNT_AGAIN} {name}"
        assert kept[step].kinds == found.kinds, f"{COUNT_AGAIN} {name}"


def same_as_each_operation(step: CountedStep, counts: Counts) -> None:
    """Operations in kinds take as long, on every card, as the sum of what each takes by itself."""
    for card in read_cards().values():
        for tf32 in (False, True):
            peaks = {True: card.tf32 * card.convolutions, False: card.fp32 * card.products}
            if tf32:
                peaks[False] = max(peaks.values())
            one_by_one = sum(
                times
                * max(each.flops / peaks[each.convolves], each.n_bytes / card.bandwidth / card.traffic, card.kernel_s)
                for each, times in counts.operations.items()
            )
            assert card.gpu_s(step.kinds, tf32) == pytest.approx(one_by_one, rel=1e-9), card


def test_the_package_holds_the_same_sizes_of_all_and_sums_that_agree() -> None:
    steps = read_steps(counted_steps.COUNTED)
    for step in steps:
        assert sum(kind.times for kind in step.kinds) == step.operations
        assert sum(kind.flops for kind in step.kinds) == step.flops
        assert sum(kind.n_bytes for kind in step.kinds) == step.n_bytes
        assert 0 < step.own_bytes < step.peak_bytes
    sizes = Counter((step.method, step.preset, step.checkpointing) for step in steps)
    assert {(name, preset, False) for name in METHODS for preset in ("published", "quick")} <= sizes.keys()
    assert {name for name, _, checkpointing in sizes if checkpointing} == {"histogene", "hist2st", "thitogene"}
    assert set(sizes.values()) == {8, 9}
    assert len(set(map(counted_steps.step_of, steps))) == len(steps)


def test_counts_that_have_become_more_end_the_comparison_with_1(tmp_path: Path, capsys) -> None:
    counts = tmp_path / "counts.json"
    roofline.main(("--methods", "histogene", *SIZES, "--out", str(counts)))
    told = capsys.readouterr().out
    assert "modelled for H200, not measured" in told
    assert "Table 1, hours" in told
    roofline.main(("--compare", str(counts)))
    assert "no count has become more" in capsys.readouterr().out
    report = json.loads(counts.read_text(encoding="utf-8"))
    report["steps"][0]["operations"] -= 1
    report["steps"][0]["n_bytes"] += 4  # less than then: told, and no fault
    counts.write_text(json.dumps(report), encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        roofline.main(("--compare", str(counts)))
    assert left.value.code == 1
    told = capsys.readouterr().out
    assert "histogene/quick/40/20" in told
    assert "operations" in told
    assert "bytes" in told
    counts.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="holds no counts"):
        roofline.main(("--compare", str(counts)))


def test_counting_a_method_anew_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "counted.json"
    path.write_bytes(counted_steps.COUNTED.read_bytes())
    (some,) = [
        step for step in read_steps(counted_steps.COUNTED) if step.method == "bleep" and step.preset == "published"
    ][:1]
    monkeypatch.setattr(counted_steps, "count_all", lambda names: iter([some] if names == ["bleep"] else []))
    monkeypatch.setattr(counted_steps, "torch_of", lambda path: counted_steps.TORCH)
    counted_steps.update(["bleep"], path)
    before = [step for step in read_steps(counted_steps.COUNTED) if step.method != "bleep"]
    after = json.loads(path.read_text(encoding="utf-8"))["steps"]
    assert [CountedStep.model_validate(step) for step in after if step["method"] != "bleep"] == before
    assert [CountedStep.model_validate(step) for step in after if step["method"] == "bleep"] == [some]


def test_counts_grow_as_arithmetic_says() -> None:
    once, twice, thrice = (harness(Step("histogene", "published", n, 100)).flops for n in (100, 200, 300))
    blocks, width = 8, 1024
    # all but the attention is linear in the spots: its two products of all pairs, forward, and five of them backward
    assert thrice - 2 * twice + once == 2 * 100**2 * blocks * (2 + 5) * 2 * width


def test_operations_alike_lose_nothing() -> None:
    some = [Operation("mm", 10**k, 10**b) for k in range(4, 14) for b in range(2, 10)]
    some += [Operation("convolution", each.flops, each.n_bytes) for each in some]
    exact = [Operations(each.convolves, 3, 3 * each.flops, 3 * each.n_bytes) for each in some]
    kinds = alike(exact)
    assert len(kinds) < len(exact)
    for card in read_cards().values():
        assert card.gpu_s(kinds) == pytest.approx(card.gpu_s(exact))
        assert card.limit_s(kinds) == pytest.approx(card.limit_s(exact))
        assert card.issuing_s(kinds) == pytest.approx(card.issuing_s(exact))
