"""The tables of one look at a GPU, as Markdown for docs/performance.md: measured and counted apart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import machine

SHARE, TIMES_LIMIT, TIMES_PUBLISHED = 0.95, 1.5, 3.5  # goals
UNKNOWN = "unknown"


def markdown(report: Mapping[str, Any]) -> str:
    """All that a look found; of a part that did not end, what it had found by then, and how it ended."""
    found = {name: part["found"] for name, part in report["parts"].items() if part["found"]}
    host = next((each for each in found.values() if "date" in each), None)
    lines = ["Tiny sections: these numbers mean nothing.", ""] if report["meaningless"] else []
    lines += [machine.in_words(host) if host else "nothing was measured", ""]
    lines += [] if report["meaningless"] else goals(found)
    for title, name, section in SECTIONS:
        if name in found:
            lines += ["", f"### {title}", "", *section(found)]
    unfinished = [(name, part["ended"]) for name, part in report["parts"].items() if part["ended"] != "finished"]
    if unfinished:
        lines += ["", "### What did not end", "", *(f"* {name}: {ended}" for name, ended in unfinished)]
    return "\n".join(lines)


def goals(found: Mapping[str, Any]) -> list[str]:
    """Each goal of a card: met, not met and by which methods, or not measured."""
    measured = _methods(found, "measured")
    counted = _methods(found, "counted")
    lines = [
        _goal(
            f"at least {SHARE} of the bare loop",
            {name: cost["share"] for name, cost in measured.items()},
            lambda value: value >= SHARE,
        ),
        _goal(
            f"a step in at most {TIMES_LIMIT} times its counted limit",
            {name: row["measured_s"] / row["limit_s"] for name, row in counted.items()},
            lambda value: value <= TIMES_LIMIT,
        ),
    ]
    loop = found.get("published_loop")
    ratios = {loop["method"]: loop["ratio"]} if loop else {}
    lines.append(
        _goal(f"at least {TIMES_PUBLISHED} times the published loop", ratios, lambda value: value >= TIMES_PUBLISHED)
    )
    return lines


def speed(found: Mapping[str, Any]) -> list[str]:
    report = found["measured"]
    rows = []
    for name, cost in report["methods"].items():
        rows.append(
            (
                name,
                f"{cost['spots_in_batch']:,}",
                f"{1e3 * cost['batch_s']:.2f}",
                f"{1e3 * cost['bare_batch_s']:.2f}",
                f"{cost['share']:.3f}",
                f"{cost['spots_per_s']:,.0f}",
                f"{cost['flops_per_s'] / 1e12:.1f}",
                f"{cost['bf16_speedup']:.2f}",
                _gib(cost["peak_memory_bytes"]),
                f"{report['table1_hours'][name]:.2f}",
            )
        )
    head = ("method", "spots in a batch", "ms a batch", "bare loop", "share", "spots a second", "TFLOP/s")
    total = sum(report["table1_hours"].values())
    return [
        f"{report['precision']}, {report['size']['preset']} presets, random weights, sections of "
        f"{report['size']['n_spots']} spots and {report['size']['n_genes']} genes.",
        "",
        *_table((*head, "bare: bf16 over fp32", "GiB at most", "Table 1, hours"), rows),
        "",
        f"Table 1, these methods one after the other, training alone: {total:.1f} hours.",
        *(f"\n{name} was not measured: {reason}." for name, reason in report["failed"].items()),
    ]


def counted(found: Mapping[str, Any]) -> list[str]:
    report = found["counted"]
    rows = [
        (
            name,
            f"{row['operations']:,}",
            f"{row['flops'] / 1e9:,.0f}",
            f"{row['bytes'] / 1e9:.1f}",
            f"{1e3 * row['host_s']:.1f}",
            f"{1e3 * row['limit_s']:.2f}",
            f"{1e3 * row['modelled_s']:.2f}",
            f"{1e3 * row['fitted_s']:.2f}",
            f"**{1e3 * row['measured_s']:.2f}**",
            f"{row['measured_s'] / row['limit_s']:.2f}",
            f"{_gib(row['peak_bytes'])} / {_gib(row['measured_peak_bytes'])}",
        )
        for name, row in report["methods"].items()
    ]
    head = ("method", "operations", "GFLOP", "GB moved", "host ms", "limit ms", "modelled ms", "fitted ms")
    fit = report["fit"]
    return [
        f"A step of the optimiser. Only the columns in bold and the last but one were measured; the model is that of "
        f"`{report['card']}` in `stbench/trials/cards.toml`.",
        "",
        *_table((*head, "measured ms", "times the limit", "GiB counted / measured"), rows),
        "",
        f"Root mean square error of the model {fit['error_before']:.0%}, and {fit['error']:.0%} with these constants:",
        "",
        "```toml",
        *fit["suggestion"].split("\n"),
        "```",
    ]


def published_loop(found: Mapping[str, Any]) -> list[str]:
    loop = found["published_loop"]
    middle = {name: statistics.median(loop[f"{name}_per_s"]) for name in ("harness", "published", "loader")}
    return [
        f"{loop['method']}: {middle['harness']:,.0f} patches a second in the harness's loop, "
        f"{middle['published']:,.0f} in the published one: {loop['ratio']:.2f} times. The loader of that one alone "
        f"gives {middle['loader']:,.0f}."
    ]


def tests(found: Mapping[str, Any]) -> list[str]:
    by_outcome: dict[str, list[str]] = {}
    for name, test in found["tests"]["tests"].items():
        by_outcome.setdefault(test["outcome"], []).append(name)
    lines = [", ".join(f"{len(names)} {outcome}" for outcome, names in by_outcome.items()) or "none ran"]
    for outcome, names in by_outcome.items():
        if outcome != "passed":
            lines += [f"* {outcome}: `{name}`: {found['tests']['tests'][name]['reason']}" for name in names]
    return [lines[0], *(["", *lines[1:]] if len(lines) > 1 else [])]


def profile(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, row in found["profile"]["methods"].items():
        if "error" in row:
            rows.append((name, row["error"], "", "", "", ""))
            continue
        kinds = list(row["ms_by_kind"].items())[:4]
        rows.append(
            (
                name,
                f"{row['busy']:.0%}",
                f"{row['kernels']:,.0f}",
                f"{row['launches']:,.0f}",
                f"{sum(row['waits_in_epoch'].values())} in {row['batches']} batches",
                ", ".join(f"{kind} {ms:.2f}" for kind, ms in kinds),
            )
        )
    return _table(("method", "GPU busy", "kernels a batch", "launches", "waits", "ms a batch, most first"), rows)


def memory(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, steps in found["memory"]["methods"].items():
        for row in steps:
            start = (name, f"{row['spots']:,}", row["checkpointing"], _gib(row["counted_bytes"]))
            if "error" in row:
                rows.append((*start, row["error"], "", ""))
                continue
            taken = row["taken_bytes"]
            times = UNKNOWN if taken is None else f"{taken / row['counted_bytes']:.2f}"
            rows.append((*start, _gib(taken), times, f"{1e3 * row['seconds']:.1f}"))
    return _table(("method", "spots", "checkpointing", "GiB counted", "measured", "times", "ms a step"), rows)


def slots(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, by_number in found["slots"]["methods"].items():
        for row in by_number:
            if "error" in row:
                rows.append((name, str(row["slots"]), row["error"], "", ""))
            else:
                gain = f"{row['gain']:.2f}" if "gain" in row else UNKNOWN
                memory = _gib(row["reserved_bytes"])
                rows.append((name, str(row["slots"]), f"{row['spots_per_s']:,.0f}", gain, memory))
    return _table(("method", "slots", "spots a second", "times one slot", "GiB reserved"), rows)


def compiled(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, row in found["compiled"]["methods"].items():
        if "error" in row:
            rows.append((name, row["error"], "", "", "", "", ""))
            continue
        eager, fast, after = row["eager"], row["compiled"], row["paid_after_steps"]
        rows.append(
            (
                name,
                f"{1e3 * eager['batch_s']:.2f}",
                f"{1e3 * fast['batch_s']:.2f}",
                f"{row['ratio']:.2f}",
                f"{row['compile_s']:.0f}",
                "never" if after is None else f"{after:,.0f} batches",
                f"{abs(fast['loss'] / eager['loss'] - 1):.0e}",
            )
        )
    head = ("method", "eager ms", "compiled ms", "times as fast", "seconds to compile", "paid after")
    return [f"The bare loop, by {found['compiled']['backend']}.", "", *_table((*head, "first loss moves by"), rows)]


def precision(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            name,
            f"{row['exchange']:.2g}",
            *(f"{share['of_spread']:.2g} / {share['of_exchange']:.2g}" for share in row["shares"].values()),
        )
        for name, row in found["precision"]["methods"].items()
    ]
    how = "TF32 emulated" if found["precision"]["emulated"] else "the card's own arithmetic"
    return [
        f"Error against float32 as a share of the spread between spots / of the effect of exchanging patches, made-up "
        f"sections; {how}.",
        "",
        *_table(("method", "exchange over spread", "fp32 (TF32 convolutions)", "tf32", "bf16"), rows),
    ]


Section = Callable[[Mapping[str, Any]], list[str]]
SECTIONS: tuple[tuple[str, str, Section], ...] = (
    ("Measured: training", "measured", speed),
    ("Measured: beside the published loop", "published_loop", published_loop),
    ("Measured: tests marked gpu", "tests", tests),
    ("Measured: where a step's time goes", "profile", profile),
    ("Measured: memory as sections grow", "memory", memory),
    ("Measured: slots of one GPU", "slots", slots),
    ("Measured: compiled against eager", "compiled", compiled),
    ("Measured: precision", "precision", precision),
    ("Counted, and modelled, against measured", "counted", counted),
)


def _methods(found: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    return found.get(part, {}).get("methods", {})


def _goal(what: str, values: Mapping[str, float], met: Callable[[float], bool]) -> str:
    if not values:
        return f"* {what}: not measured"
    missed = {name: value for name, value in values.items() if not met(value)}
    if not missed:
        return f"* {what}: met ({', '.join(f'{name} {value:.2f}' for name, value in values.items())})"
    return f"* {what}: **not met** by {', '.join(f'{name} ({value:.2f})' for name, value in missed.items())}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", "| " + " | ".join(["---"] + ["---:"] * (len(columns) - 1)) + " |"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def _gib(n_bytes: int | None) -> str:
    return UNKNOWN if n_bytes is None else f"{n_bytes / 2**30:.1f}"
