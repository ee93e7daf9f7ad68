"""What a figure holds, read back from it."""

from matplotlib.axes import Axes


def marks_of(axes: Axes) -> list[tuple[float, float]]:
    """Where the marks of a scatter plot stand, in the order in which they were drawn."""
    return [(float(x), float(y)) for drawn in axes.collections for x, y in drawn.get_offsets()]


def crosses_of(axes: Axes) -> int:
    """How many crosses stand for a value that is not there."""
    return sum(len(line.get_xdata()) for line in axes.get_lines() if line.get_marker() == "x")
