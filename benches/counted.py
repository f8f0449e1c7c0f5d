"""Instructions, allocations, and locked instructions per request under valgrind: CI's guard.

They are almost the same in every run, so a small growth shows. They are a poor measure of time: use
cpu.py to compare designs. Instructions and locks of the allocator are left out, because they depend
on the machine.
"""
import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import tempfile

import tools

# Allowed growth, and instructions that differ between equal runs.
GROWTH, NOISE = 1.05, 150

WARM_UP, REQUESTS = 50, 200

ROWS = {
    "bare axum": "axum,none,respond,none",
    "no-op layer": "axum,no_op,respond,none",
    "no-op layer, tokio::spawn": "axum,no_op,spawn,none",
    "floor, nothing deferred": "axum,floor,respond,none",
    "floor, 1 callback": "axum,floor,push,none",
    "DeferLayer, nothing deferred": "axum,defer,respond,none",
    "DeferLayer, 1 callback": "axum,defer,defer,none",
    "DeferLayer, 100 callbacks": "axum,defer,defer100,none",
    "handle held, nothing deferred": "axum,defer-handle,respond,none",
    "handle held, 1 callback": "axum,defer-handle,defer,none",
    "around the router, nothing deferred": "axum,defer-around,respond,none",
    "around the router, 1 callback": "axum,defer-around,defer,none",
    "axum_defer::serve, no layer": "axum_defer,none,respond,none",
    "axum_defer::serve, 1 callback": "axum_defer,defer,defer,none",
    "graceful axum_defer::serve, nothing deferred": "axum_defer-graceful,defer,respond,none",
    "graceful axum_defer::serve, 1 callback": "axum_defer-graceful,defer,defer,none",
    "INFO, request span, 1 callback": "axum,defer,defer,info-span",
    "observer, 1 callback": "axum,defer-observer,defer,none",
}
BARE = "bare axum"
KINDS = "instructions", "locked", "allocations"

ALLOCATOR = re.compile(
    r"fn=(malloc|free|calloc|realloc|aligned_alloc|posix_memalign|_int_|_mid_memalign"
    r"|unlink_chunk|alloc_perturb|tcache|sysmalloc)")


def valgrind(tool, binary, variant, requests):
    """Returns what valgrind printed, and callgrind's profile."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "profile"
        command = ["valgrind", f"--tool={tool}", f"--{tool}-out-file={path}"]
        if tool == "callgrind":
            command += ["--collect-bus=yes", "--compress-strings=no", "--compress-pos=no"]
        command += [binary, "count", variant, str(requests)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        return printed, path.read_text() if tool == "callgrind" else ""


def outside_allocator(profile):
    """Instructions and locked instructions. Lines after `calls=` repeat the callee's costs."""
    sums, is_allocator, is_call = [0, 0], False, False
    for line in profile.splitlines():
        if line.startswith("fn="):
            is_allocator = ALLOCATOR.match(line) is not None
        elif line.startswith("calls="):
            is_call = True
        elif line[:1].isdigit():
            if not is_allocator and not is_call:
                for kind, cost in enumerate(line.split()[1:3]):
                    sums[kind] += int(cost)
            is_call = False
    return sums


def allocations(printed):
    return int(re.search(r"Total:.* in ([\d,]+) blocks", printed)[1].replace(",", ""))


def count(binary, variant):
    """Counts a short and a long run. The difference is the cost of the additional requests."""
    counts = []
    for requests in WARM_UP, WARM_UP + REQUESTS:
        _, profile = valgrind("callgrind", binary, variant, requests)
        printed, _ = valgrind("dhat", binary, variant, requests)
        counts.append([*outside_allocator(profile), allocations(printed)])
    return [(after - before) / REQUESTS for before, after in zip(*counts)]


def failures(figures, known):
    before = known.get("counts", {})
    # Another compiler generates different code for axum, too.
    scale = 1
    if before and known.get("compiler") != tools.compiler():
        scale = figures[f"{BARE}: instructions"] / before[f"{BARE}: instructions"]
    for name, figure in figures.items():
        if name not in before:
            yield f"{name}: not in the baseline, save it with --save"
            continue
        limit = before[name] * GROWTH
        if name.endswith("instructions"):
            limit = limit * scale + NOISE
        # A sporadic allocation, such as the growth of a table, is no failure.
        if figure > limit + 0.1:
            yield f"{name}: {before[name]:.1f} in the baseline, {figure:.1f} now"


def run(_options, known):
    if not shutil.which("valgrind"):
        print("\nskipped counted: no valgrind")
        return None
    binary = tools.build("cpu")
    tools.progress("counted: about a minute")
    with concurrent.futures.ThreadPoolExecutor(len(tools.CORES)) as pool:
        counted = pool.map(lambda variant: count(binary, variant), ROWS.values())
        counted = {row: dict(zip(KINDS, counts)) for row, counts in zip(ROWS, counted)}
    figures = {}
    for row, counts in counted.items():
        for kind, figure in counts.items():
            # The cost of hyper and axum would hide a growth.
            above = counted[BARE][kind] if row != BARE else 0
            figures[f"{row}: {kind}"] = round(figure - above, 2)
    tools.table("per request, above bare axum", figures, known.get("counts", {}))
    return {"counts": figures}
