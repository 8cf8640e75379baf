"""What may go wrong, done on purpose: what was noticed, lost or wrongly believed.

`python -m faults` (make faults) does them all and ends with an error when one went other
than it should; NAME… does some, --speed measures the client and the cache instead. All is real:
HTTP on loopback, kill -9, files, training. Judges are in faults.frauds, rewards that can be gamed
in faults.games, calls in faults.outages, training in faults.hazards, data, dedup and statistics in
faults.drifts.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import time

from faults.drifts import DATA_FAULTS
from faults.frauds import JUDGE_FAULTS
from faults.games import REWARD_FAULTS
from faults.hazards import TRAINING_FAULTS
from faults.outages import CALL_FAULTS
from faults.speed import speed_table
from faults.staging import row
from lib.config import ROOT
from lib.tables import write_text

FAULTS = {
    fault.__name__: fault
    for fault in (
        *JUDGE_FAULTS,
        *REWARD_FAULTS,
        *CALL_FAULTS,
        *TRAINING_FAULTS,
        *DATA_FAULTS,
    )
}


def table(names) -> list[dict]:
    """One row per fault, printed as it comes.

    Columns fault, n, detected, lost, false_positives, ok, note, seconds.
    """
    rows = []
    for name in names:
        began, noise = time.monotonic(), io.StringIO()
        try:
            with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
                outcome = FAULTS[name]()
        # a fault that was not expected to raise is a failed one, and the others still run
        except Exception as error:
            outcome = row(1, 0, ok=False, note=f"{type(error).__name__}: {error}"[:200])
        outcome = {name.replace("_", " "): outcome} if "ok" in outcome else outcome
        for fault, values in outcome.items():
            rows.append(
                {
                    "fault": fault,
                    **values,
                    "seconds": round((time.monotonic() - began) / len(outcome), 2),
                }
            )
            print(
                "{0} {fault:40} n {n:6} detected {detected:6} lost {lost:3} false "
                "{false_positives:2} {seconds:6.1f} s"
                "  {note}".format("ok " if values["ok"] else "BAD", **rows[-1]),
                flush=True,
            )
        if not all(values["ok"] for values in outcome.values()):
            print(noise.getvalue()[-3000:])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Do what may go wrong, and say what then happened."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"some of: {', '.join(FAULTS)}; all by default"
    )
    parser.add_argument(
        "--speed", action="store_true", help="measure the client and the cache instead"
    )
    args = parser.parse_args()
    folder = ROOT / os.environ.get("OUTPUTS", "outputs") / "faults"
    if unknown := sorted(set(args.names) - set(FAULTS)):
        sys.exit(f"faults: unknown {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    rows = speed_table() if args.speed else table(args.names or FAULTS)
    if args.speed or not args.names:  # some faults are no table
        path = folder / ("speed.json" if args.speed else "summary.json")
        write_text(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        print(path)
    bad = [r["fault"] for r in rows if not r["ok"]] if not args.speed else []
    print(f"{len(rows)} rows, {sum(r['seconds'] for r in rows):.0f} s")
    sys.exit(f"faults: not as they should be: {', '.join(bad)}" if bad else None)


if __name__ == "__main__":
    main()
