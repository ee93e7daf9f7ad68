"""The metrics that are shown, and which way they are better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    name: str
    title: str
    higher_is_better: bool


METRICS = {
    metric.name: metric
    for metric in (
        Metric("pcc_acg", "PCC (ACG)", True),
        Metric("pcc_heg", "PCC (HEG)", True),
        Metric("mse", "MSE", False),
        Metric("mae", "MAE", False),
        Metric("strict_pcc_acg", "strict PCC (ACG)", True),
        Metric("strict_pcc_heg", "strict PCC (HEG)", True),
    )
}
