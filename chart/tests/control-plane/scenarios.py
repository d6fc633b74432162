"""Runs scenarios on one control plane: the plane's own first, then the chart's. `scenarios.py [name ...]`"""

import os
import pathlib
import sys
import time
import traceback

import chart_scenarios
import cluster_scenarios
import lifecycle_scenarios
import plane_scenarios
import secret_scenarios
from plane import Failed, Plane


def main():
    chosen = sys.argv[1:]
    every = {**plane_scenarios.SCENARIOS, **chart_scenarios.SCENARIOS, **lifecycle_scenarios.SCENARIOS, **cluster_scenarios.SCENARIOS, **secret_scenarios.SCENARIOS}
    for name in chosen:
        if name not in every:
            sys.exit(f"no such scenario: {name}; there are {' '.join(every)}")
    logs = pathlib.Path(os.environ["PLANE_LOGS"])
    began = time.monotonic()
    plane = Plane(os.environ["PLANE_PROGRAMS"], logs, os.environ["MEMSTORE"])
    try:
        plane.start()
    except Exception as error:
        plane.tails()
        sys.exit(f"the control plane did not start: {error!r}")
    print(f"control plane: up after {time.monotonic() - began:.1f} s", flush=True)
    failed = []
    for name in chosen or every:
        begin, since = time.monotonic(), time.time()
        print(f"{name}:", flush=True)
        try:
            plane.faults.clear()
            every[name](plane)
            if plane.faults:
                raise Failed(f"{len(plane.faults)} faults: {'; '.join(plane.faults)}")
        except Exception as error:
            failed.append(name)
            if not plane.faults:
                traceback.print_exc(file=sys.stdout)
            plane.tails(since)
            print(f"{name}: FAILED after {time.monotonic() - begin:.1f} s: {error}", flush=True)
            plane.show_objects()
            plane.close_nodes(False)
            plane.remove_namespaces()
        else:
            print(f"{name}: ok, {time.monotonic() - begin:.1f} s", flush=True)
    sys.exit(f"failed: {' '.join(failed)}" if failed else 0)


main()
