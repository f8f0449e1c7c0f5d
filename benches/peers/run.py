#!/usr/bin/env python3
"""Deferred work in PHP-FPM, Starlette, Fastify, axum and axum-defer, side by side:

    python3 benches/peers/run.py            facts and throughput, about six minutes
    python3 benches/peers/run.py --draw     draws the pictures again, from the last results

Needs Rust. Installs the others where it may (Debian's packages, pip and npm), and says what it left
out. Prints a table, and writes target/peers/results.json and the two pictures in docs/peers.
"""
import json
import re
import subprocess
import sys

import pictures
from facts import RESETS, STOPS, facts
from peers import PEERS, WORK, Missing, Server, need

ROUNDS = 5
SECONDS = 3


def requests_a_second(wrk, server, path):
    command = [wrk, "-t1", "-c64", f"-d{SECONDS}s", f"http://127.0.0.1:{server.port}{path}"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    if not found or failed:
        raise Missing(f"wrk: {path}: {told}")
    return float(found[1])


def throughput(peers):
    """In rounds of all peers, so that what else the machine does meets each of them."""
    wrk = need("wrk", "wrk")
    rates = {peer.name: {"/plain": [], "/defer": []} for peer in peers}
    for number in range(ROUNDS):
        for peer in peers:
            print(f"throughput, round {number + 1} of {ROUNDS}: {peer.title}", file=sys.stderr)
            with Server(peer) as server:
                for path, measured in rates[peer.name].items():
                    measured.append(requests_a_second(wrk, server, path))
    return rates


def table(results):
    def row(name, cell):
        return f"| {name} | " + " | ".join(cell(found) for found in results.values()) + " |"

    def ratio(found, others):
        return f"{pictures.over(found['rates']['/defer'], others):.2f}"

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
    if all("rates" in found for found in results.values()):
        lines.append(row("requests a second with a callback, over its own without",
                         lambda found: ratio(found, found["rates"]["/plain"])))
        if "spawn" in results:
            lines.append(row("the same, over axum with tokio::spawn",
                             lambda found: ratio(found, results["spawn"]["rates"]["/defer"])))
    return "\n".join(lines)


def measure():
    WORK.mkdir(parents=True, exist_ok=True)
    results, there = {}, []
    for peer in PEERS:
        try:
            peer.prepare()
            print(f"facts: {peer.title}", file=sys.stderr)
            results[peer.name] = {"title": peer.title, **facts(peer)}
            there.append(peer)
        except Missing as missing:
            print(f"left out: {peer.title}: {missing}", file=sys.stderr)
    try:
        for name, rates in throughput(there).items():
            results[name]["rates"] = rates
    except Missing as missing:
        print(f"left out: throughput: {missing}", file=sys.stderr)
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
