"""The parts of a report: each module or package answers one question."""
