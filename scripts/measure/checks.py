"""What every scenario that sends looks at afterwards: the ledger of the load generator."""

from load import BROKEN, VOID

# In the reports' fixed names; the others are summed as "other".
NAMED = ("lost", "doubled", "reordered")
OTHERS = ("gaps", "damaged", "unknown", "refused", "resets", "diverged", "protocol")


def faults(events):
    """
    {lost, doubled, reordered, other} of a run: of its last reading of the logs, since an earlier
    one is part of it; and a run that didn't get to read them has `incomplete`.
    """
    readings = [one for one in events if one["event"] in ("settled", "verified")]
    counts = dict.fromkeys((*NAMED, "other"), 0)
    for reading in readings:
        for name in NAMED:
            counts[name] = max(counts[name], reading[name])
        counts["other"] = max(counts["other"], sum(reading[name] for name in OTHERS))
    counts["incomplete"] = int(not readings or not all(one["complete"] for one in readings))
    return counts


class Ledger:
    """The faults of all runs of a scenario."""

    def __init__(self, bench, scenario):
        self._bench = bench
        self._scenario = scenario
        self._counts = []

    def take(self, load, code):
        """A run has ended: its exit code, and what it found."""
        found = faults(load.events)
        self._counts.append(found)
        if code == BROKEN or any(found.values()):
            self._bench.fault(f"{self._scenario}: {found}: {load.last_words()}")
        elif code == VOID:
            self._bench.fault(f"{self._scenario}: void: {load.last_words()}")
        elif code:
            self._bench.fault(f"{self._scenario}: the load generator ended with {code}: "
                              f"{load.last_words()}")

    def report(self):
        for name in NAMED:
            self._bench.report.add(f"{self._scenario}.{name}", "messages",
                                   [counts[name] for counts in self._counts])
