"""A step of every published method, counted: what the harness adds, and what is found when counts are compared."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import roofline
from counted_step import Step, bare, harness
from plain_step import METHODS

from stbench.errors import UserError

COUNT_AGAIN = "if that is meant, count again: python benchmarks/roofline.py --out benchmarks/counts.json"


@pytest.fixture(scope="module")
def kept() -> dict[Step, dict[str, int]]:
    if json.loads(roofline.COUNTS.read_text(encoding="utf-8"))["torch"] != roofline.TORCH:
        return {}  # another torch issues other operations
    return roofline.read_counts(roofline.COUNTS)


@pytest.mark.parametrize("name", METHODS)
def test_the_harness_adds_a_twentieth_to_a_published_step_at_most(name: str, kept: dict) -> None:
    step = Step(name, "published", roofline.batch_of(name, "published") or roofline.SPOTS, roofline.GENES)
    ours, plain = harness(step), bare(step)
    assert ours.spots == plain.spots
    assert plain.n <= ours.n <= 1.05 * plain.n
    assert ours.n_bytes <= 1.05 * plain.n_bytes
    assert ours.flops == plain.flops
    assert ours.peak_bytes <= 1.05 * plain.peak_bytes
    assert any(operation.name.startswith("_fused_") for operation in ours.operations)
    if kept:
        assert roofline.changes(kept[step], roofline.numbers(ours)) == [], COUNT_AGAIN


def test_counts_that_have_become_more_end_the_comparison_with_1(tmp_path: Path, capsys) -> None:
    counts = tmp_path / "counts.json"
    words = ("--methods", "histogene", "--preset", "quick", "--spots", "40", "--genes", "20")
    roofline.main((*words, "--out", str(counts)))
    assert "modelled for H200, not measured" in capsys.readouterr().out
    roofline.main(("--compare", str(counts)))
    assert "no count has become more" in capsys.readouterr().out
    report = json.loads(counts.read_text(encoding="utf-8"))
    report["steps"][0]["harness"]["operations"] -= 1
    report["steps"][0]["harness"]["bytes"] += 4  # less than then: told, and no fault
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


def test_counts_grow_as_arithmetic_says() -> None:
    once, twice, thrice = (harness(Step("histogene", "published", n, 100)).flops for n in (100, 200, 300))
    blocks, width = 8, 1024
    # all but the attention is linear in the spots: its two products of all pairs, forward, and five of them backward
    assert thrice - 2 * twice + once == 2 * 100**2 * blocks * (2 + 5) * 2 * width
