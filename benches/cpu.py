"""CPU time per request in memory: hyper and axum over a duplex, one server per process.

Each round starts every row once, in random order, and takes a low percentile of its batches. A row
is the lower quartile of its rounds, because a busy sibling core slows whole rounds.
"""
import statistics

import tools

REQUESTS, BATCHES = 100, 150

# Name: variant, connections.
ROWS = {
    "bare axum": ("axum,none,respond,none", 1),
    "no-op layer": ("axum,no_op,respond,none", 1),
    "tokio::spawn": ("axum,none,spawn,none", 1),
    "no-op layer, tokio::spawn": ("axum,no_op,spawn,none", 1),
    "no-op layer, 10 tokio::spawn": ("axum,no_op,spawn10,none", 1),
    "no-op layer, TaskTracker and info_span": ("axum,no_op,track,none", 1),
    "hand-made layer, nothing deferred": ("axum,hand_made,respond,none", 1),
    "hand-made layer, 1 callback": ("axum,hand_made,pushed,none", 1),
    "floor, nothing deferred": ("axum,floor,respond,none", 1),
    "floor, 1 callback": ("axum,floor,push,none", 1),
    "floor, 10 callbacks": ("axum,floor,push10,none", 1),
    "DeferLayer, nothing deferred": ("axum,defer,respond,none", 1),
    "DeferLayer, 1 callback": ("axum,defer,defer,none", 1),
    "DeferLayer, 1 named callback": ("axum,defer,named,none", 1),
    "DeferLayer, 10 callbacks": ("axum,defer,defer10,none", 1),
    "handle held, nothing deferred": ("axum,defer-handle,respond,none", 1),
    "handle held, 1 callback": ("axum,defer-handle,defer,none", 1),
    "handle held, 10 callbacks": ("axum,defer-handle,defer10,none", 1),
    "around the router, nothing deferred": ("axum,defer-around,respond,none", 1),
    "around the router, 1 callback": ("axum,defer-around,defer,none", 1),
    "observer, 1 callback": ("axum,defer-observer,defer,none", 1),
    "axum_defer::serve, no layer": ("axum_defer,none,respond,none", 1),
    "axum_defer::serve, tokio::spawn": ("axum_defer,none,spawn,none", 1),
    "axum_defer::serve, nothing deferred": ("axum_defer,defer,respond,none", 1),
    "axum_defer::serve, 1 callback": ("axum_defer,defer,defer,none", 1),
    "graceful axum::serve, no layer": ("axum-graceful,none,respond,none", 1),
    "graceful axum::serve, 1 callback": ("axum-graceful,defer,defer,none", 1),
    "graceful axum_defer::serve, no layer": ("axum_defer-graceful,none,respond,none", 1),
    "graceful axum_defer::serve, nothing deferred": ("axum_defer-graceful,defer,respond,none", 1),
    "graceful axum_defer::serve, 1 callback": ("axum_defer-graceful,defer,defer,none", 1),
    "INFO, no-op layer": ("axum,no_op,respond,info", 1),
    "INFO, no-op layer, tokio::spawn": ("axum,no_op,spawn,info", 1),
    "INFO, no-op layer, TaskTracker and info_span": ("axum,no_op,track,info", 1),
    "INFO, DeferLayer, nothing deferred": ("axum,defer,respond,info", 1),
    "INFO, DeferLayer, 1 callback": ("axum,defer,defer,info", 1),
    "INFO, request span, no-op layer": ("axum,no_op,respond,info-span", 1),
    "INFO, request span, no-op layer, tokio::spawn": ("axum,no_op,spawn,info-span", 1),
    "INFO, request span, no-op layer, TaskTracker and info_span":
        ("axum,no_op,track,info-span", 1),
    "INFO, request span, DeferLayer, nothing deferred": ("axum,defer,respond,info-span", 1),
    "INFO, request span, DeferLayer, 1 callback": ("axum,defer,defer,info-span", 1),
    "64 connections, no-op layer": ("axum,no_op,respond,none", 64),
    "64 connections, no-op layer, tokio::spawn": ("axum,no_op,spawn,none", 64),
    "64 connections, floor, 1 callback": ("axum,floor,push,none", 64),
    "64 connections, DeferLayer, 1 callback": ("axum,defer,defer,none", 64),
    "64 connections, handle held, 1 callback": ("axum,defer-handle,defer,none", 64),
}

WAITERS = 10_000


def ratios(ns):
    def above(row, base):
        return ns[row] - ns[base]

    noop, spawn = "no-op layer", "no-op layer, tokio::spawn"
    many = "64 connections, "
    return {
        "nothing deferred: ns above a no-op layer, over the floor's":
            above("DeferLayer, nothing deferred", noop) / above("floor, nothing deferred", noop),
        "one callback: ns above tokio::spawn under a no-op layer, over the floor's":
            above("DeferLayer, 1 callback", spawn) / above("floor, 1 callback", spawn),
        "one callback, handle held: ns above tokio::spawn under a no-op layer, over the floor's":
            above("handle held, 1 callback", spawn) / above("floor, 1 callback", spawn),
        "one callback, handle held, 64 connections: the same":
            above(many + "handle held, 1 callback", many + spawn)
            / above(many + "floor, 1 callback", many + spawn),
        "ten callbacks: ns above a no-op layer, over the floor's":
            above("DeferLayer, 10 callbacks", noop) / above("floor, 10 callbacks", noop),
        "ten callbacks, handle held: ns above a no-op layer, over the floor's":
            above("handle held, 10 callbacks", noop) / above("floor, 10 callbacks", noop),
        "one callback: ns above a no-op layer, over TaskTracker's with an info_span":
            above("DeferLayer, 1 callback", noop)
            / above("no-op layer, TaskTracker and info_span", noop),
        "axum_defer::serve, no layer, over axum::serve: ns per request":
            ns["axum_defer::serve, no layer"] / ns["bare axum"],
        "axum_defer::serve, nothing deferred, over axum::serve: ns per request":
            ns["axum_defer::serve, nothing deferred"] / ns["DeferLayer, nothing deferred"],
        "axum_defer::serve, 1 callback, over axum::serve: ns per request":
            ns["axum_defer::serve, 1 callback"] / ns["DeferLayer, 1 callback"],
        "graceful axum_defer::serve, 1 callback, over bare axum: ns per request":
            ns["graceful axum_defer::serve, 1 callback"] / ns["bare axum"],
        "INFO, request span, 1 callback: ns above a no-op layer, over TaskTracker's":
            above("INFO, request span, DeferLayer, 1 callback", "INFO, request span, no-op layer")
            / above("INFO, request span, no-op layer, TaskTracker and info_span",
                    "INFO, request span, no-op layer"),
        "INFO, 1 callback: ns above a no-op layer, over the same without a subscriber":
            above("INFO, DeferLayer, 1 callback", "INFO, no-op layer")
            / above("DeferLayer, 1 callback", noop),
        "INFO, nothing deferred, over the same without a subscriber: ns per request":
            ns["INFO, DeferLayer, nothing deferred"] / ns["DeferLayer, nothing deferred"],
    }


def measure(rounds, binaries):
    """Returns the time of every row, one dictionary per binary."""
    runs = [(binary, name) for binary in binaries for name in ROWS]
    times = {run: [] for run in runs}
    for number in range(rounds):
        tools.progress(f"cpu, round {number + 1} of {rounds}")
        core = tools.CORES[number % len(tools.CORES)]
        for binary, name in tools.shuffled(runs):
            variant, connections = ROWS[name]
            command = [binary, "time", variant, str(REQUESTS), str(BATCHES), str(connections)]
            printed = tools.output(command, **tools.pinned(core))
            times[binary, name].append(float(printed.split()[0]))
    quartiles = {run: tools.quartiles(figures) for run, figures in times.items()}
    spread = statistics.median(high / low for low, _, high in quartiles.values())
    tools.progress(f"cpu: the upper quartile of the rounds is {spread:.2f} times the lower")
    return [{name: quartiles[binary, name][0] for name in ROWS} for binary in binaries]


def waiters(binary):
    polls, ns = tools.output([binary, "waiters", str(WAITERS)]).split()
    return {"polls of poll_ready per admission": float(polls),
            "CPU time per admission, in ns": float(ns)}


def run(options, known):
    binary = tools.build("cpu")
    rounds = 8 if options.quick else 24
    ns, *before = measure(rounds, [binary, *options.against])
    figures = {"ns": ns, "ratios": ratios(ns), "waiters": waiters(binary)}
    if before:
        known = known | {"ns": before[0], "ratios": ratios(before[0])}
    bare = known.get("ns", {}).get("bare axum")
    speed = ns["bare axum"] / bare if bare else 1
    tools.table("CPU time per request, in ns", ns, known.get("ns", {}), speed)
    tools.table("ratio", figures["ratios"], known.get("ratios", {}))
    tools.table(f"max_pending(1) with {WAITERS:,} waiters", figures["waiters"],
                known.get("waiters", {}))
    return figures
