"""Figures: a name, the runs, their median, and what it is measured against.

JSON, one object a line: {"figure", "value", "unit", "runs": [...], "of": {"what", "value"}, "ratio"}.
`of` and `ratio` are null where there was nothing to compare with in the same call.
"""

import json
import sys


def median(values):
    """The middle one; of an even number the mean of the two in the middle."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2


def tidy_number(value):
    """A whole number as such, others to four significant places: more is noise."""
    if value is None or isinstance(value, int):
        return value
    if value == int(value):
        return int(value)
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded == int(rounded) else rounded


def slope(low, high):
    """Bytes (or whatever) for each one more: of two points (count, value)."""
    if low[0] == high[0]:
        raise ValueError("a slope needs two counts")
    return (high[1] - low[1]) / (high[0] - low[0])


class Figure:
    """`runs` as they were measured; `of` is (what, value) or None."""

    def __init__(self, name, unit, runs, of=None):
        self.name = name
        self.unit = unit
        self.runs = list(runs)
        self.of = of

    @property
    def value(self):
        return median(self.runs)

    @property
    def ratio(self):
        if self.of is None or not self.of[1]:
            return None
        return self.value / self.of[1]

    def as_dict(self):
        of = None
        if self.of is not None:
            of = {"what": self.of[0], "value": tidy_number(self.of[1])}
        return {"figure": self.name, "value": tidy_number(self.value), "unit": self.unit,
                "runs": [tidy_number(run) for run in self.runs], "of": of,
                "ratio": tidy_number(self.ratio)}

    def as_line(self):
        text = f"{self.name:<36} {grouped(tidy_number(self.value)):>14} {self.unit}"
        if len(self.runs) > 1:
            low, high = tidy_number(min(self.runs)), tidy_number(max(self.runs))
            text += f"  ({len(self.runs)} runs, {grouped(low)} to {grouped(high)})"
        if self.of is not None:
            text += f"  = {tidy_number(self.ratio)} of {grouped(tidy_number(self.of[1]))}, {self.of[0]}"
        return text


def grouped(number):
    return f"{number:,}" if isinstance(number, (int, float)) else str(number)


class Report:
    """Prints each figure as soon as it is known, for people or as JSON. Words go to stderr."""

    def __init__(self, as_json, out=sys.stdout, err=sys.stderr):
        self.as_json = as_json
        self.figures = []
        self._out = out
        self._err = err

    def add(self, name, unit, runs, of=None):
        figure = Figure(name, unit, runs, of)
        self.figures.append(figure)
        text = json.dumps(figure.as_dict()) if self.as_json else figure.as_line()
        print(text, file=self._out, flush=True)
        return figure

    def say(self, text):
        print(f"bench: {text}", file=self._err, flush=True)
