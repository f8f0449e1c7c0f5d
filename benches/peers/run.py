#!/usr/bin/env python3
"""Deferred work in PHP-FPM, Starlette, Fastify, axum and axum-defer, side by side:

    python3 benches/peers/run.py            runs all peers
    python3 benches/peers/run.py --draw     draws the picture again, from the last results

Needs Rust. Installs the other peers if it has permission (Debian's packages, pip, and npm), and prints
which ones it left out. Prints a table, and writes target/peers/results.json and the picture in
docs/peers. For CPU time, see benches/run.py.
"""
import json
import sys

import pictures
from facts import RESETS, STOPS, facts
from peers import PEERS, WORK, Missing


def table(results):
    def row(name, cell):
        return f"| {name} | " + " | ".join(cell(found) for found in results.values()) + " |"

    def slow(found):
        told = found["slow_reader"]
        if told is None:
            return "never"
        return f"{told['mib_read']} of {told['mib_in_all']} MiB, {told['seconds_early']} s early"

    lines = [
        row("", lambda found: found["title"]),
        "|---" * (len(results) + 1) + "|",
        row("slow reader: what it had read when the callback began", slow),
        row(f"client resets, deferred before the wait: ran, of {RESETS}",
            lambda found: str(found["reset_after_defer"])),
        row(f"client resets, deferred after the wait: ran, of {RESETS}",
            lambda found: str(found["reset_before_defer"])),
        row(f"client resets in mid-stream: ran, of {RESETS}",
            lambda found: str(found["reset_in_stream"])),
        row(f"SIGTERM during a callback: finished, of {STOPS}",
            lambda found: str(found["finished_at_sigterm"])),
        row("the first of two fails: the second runs",
            lambda found: "yes" if found["second_runs"] else "no"),
    ]
    return "\n".join(lines)


def measure():
    WORK.mkdir(parents=True, exist_ok=True)
    results = {}
    for peer in PEERS:
        try:
            peer.prepare()
            print(f"facts: {peer.title}", file=sys.stderr)
            results[peer.name] = {"title": peer.title, **facts(peer)}
        except Missing as missing:
            print(f"left out: {peer.title}: {missing}", file=sys.stderr)
    return results


def main():
    kept = WORK / "results.json"
    if sys.argv[1:] == ["--draw"]:
        results = json.loads(kept.read_text())
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        results = measure()
        kept.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    pictures.draw(results)


if __name__ == "__main__":
    main()
