"""Building, running, comparing, and printing: shared by the scripts beside this one."""
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys

BENCHES = pathlib.Path(__file__).resolve().parent
BASELINE = BENCHES / "baseline.json"
CORES = sorted(os.sched_getaffinity(0))


def build(bench, *options, **environment):
    """Builds a bench target and returns the path of its binary."""
    command = ["cargo", "bench", "--package", "axum-defer-benches", "--bench", bench,
               "--no-run", "--message-format=json-render-diagnostics", *options]
    built = subprocess.run(command, cwd=BENCHES.parent, env=os.environ | environment,
                           stdout=subprocess.PIPE, text=True, check=True).stdout
    messages = [json.loads(line) for line in built.splitlines()]
    return [message["executable"] for message in messages
            if message.get("executable") and message["target"]["name"] == bench][-1]


def pinned(core):
    """Options that pin a child process to a core."""
    return {"preexec_fn": lambda: os.sched_setaffinity(0, {core})}


def output(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **options).stdout


def shuffled(rows):
    rows = list(rows)
    random.shuffle(rows)
    return rows


def progress(text):
    print(text, file=sys.stderr, flush=True)


def quartiles(figures):
    return statistics.quantiles(figures, n=4, method="inclusive")


def compiler():
    return output(["rustc", "--version"]).strip()


def load():
    return json.loads(BASELINE.read_text()) if BASELINE.exists() else {}


def save(section, figures):
    """Replaces one section of the baseline."""
    known = load()
    known[section] = {"compiler": compiler()} | figures
    BASELINE.write_text(json.dumps(known, indent=1) + "\n")


def table(title, figures, known, speed=1):
    """Prints figures by name beside those of the baseline.

    `speed` is the time of a yardstick over its time in the baseline. The last column leaves it out.
    """
    print(f"\n| {title} | now | baseline | now / baseline |\n|---|---|---|---|")
    for name, figure in figures.items():
        before = known.get(name)
        ratio = f"{figure / before / speed:.2f}" if before else ""
        print(f"| {name} | {shown(figure)} | {shown(before)} | {ratio} |")


def shown(figure):
    if figure is None:
        return ""
    return f"{figure:,.0f}" if abs(figure) >= 20 else f"{figure:.2f}"
