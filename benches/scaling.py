"""Throughput and CPU time on several threads over one, from contention.rs."""
import re

import tools


def run(options, known):
    rounds = 7 if options.quick else 31
    tools.progress(f"scaling, {rounds} rounds")
    printed = tools.output([tools.build("contention"), str(rounds)])
    lines = re.findall(r"^(.+): ([\d.]+) \(", printed, re.MULTILINE)
    figures = {"ratios": {name: float(median) for name, median in lines}}
    tools.table("several threads over one", figures["ratios"], known.get("ratios", {}))
    return figures
