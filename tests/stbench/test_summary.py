"""The table that a run ends with: what is counted is named, and no trial's time is counted twice."""

import pandas as pd
import pytest

from stbench.cli.summary import print_summary


def rows(seeds: list[int]) -> pd.DataFrame:
    """One method, left one patient out: a trial tests both slices of its fold."""
    return pd.DataFrame(
        [
            {
                **{"key": f"k{seed}", "dataset": "demo", "split": "lopo", "target": "t", "method": "stnet"},
                **{"preset": "quick", "variant": "", "weights": "none", "oracle": False, "seed": seed, "slice": name},
                **{"precision": "fp32"},
                **{"state": "finished", "pcc_acg": 0.25, "pcc_heg": 0.5, "mse": 1.5, "mae": 2.5, "fit_s": 12.0},
            }
            for seed in seeds
            for name in ("P1a", "P1b")
        ]
    )


@pytest.mark.parametrize(
    ("seeds", "counted", "done", "fit_s"), [([0], "slices ", "2/2", "12"), ([0, 1], "slices × seeds", "4/4", "24")]
)
def test_slices_are_counted_and_trials_are_timed(
    capsys: pytest.CaptureFixture[str], seeds: list[int], counted: str, done: str, fit_s: str
) -> None:
    print_summary(rows(seeds))
    title, heads, line = [text.rstrip() for text in capsys.readouterr().out.splitlines() if text.strip()]
    assert title == "demo, lopo, t, preset quick: means over finished slices"
    assert counted in heads
    assert line.split() == ["stnet", done, "0.2500", "0.5000", "1.5000", "2.5000", fit_s]
