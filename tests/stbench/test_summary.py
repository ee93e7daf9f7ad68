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
                **{"precision": "fp32", "leak": "", "reason": "", "alarms": "", "notes": ""},
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


def test_a_number_that_went_astray_keeps_the_tables_width(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(rows([0]).assign(mse=2.71e18, mae=1.2e9))
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split() == ["stnet", "2/2", "0.2500", "0.5000", "2.7e+18", "1.2e+09", "12"]


def test_the_last_lines_count_failures_alarms_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    three = rows([0, 1, 2])
    three.loc[three["seed"] == 0, ["state", "reason"]] = ["failed", "it called sys.exit(0)"]
    three.loc[three["seed"] == 1, "alarms"] = "the training diverged"
    three.loc[three["seed"] > 0, "notes"] = "[one] note"
    print_summary(three)
    where = "of summary.csv, and the report"
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()][-3:] == [
        f"1 of 3 trials failed (stnet 1): column reason {where}",
        f"1 of 3 trials raised an alarm (stnet 1): column alarms {where}",
        f"2 of 3 trials have notes (stnet 2): column notes {where}",
    ]
