"""CPU time per request over sockets: the server on one core, wrk with 64 connections on another.

Ratios are taken within a round. Without a second core, with a busy machine, or for servers that
differ by less than the control row, the figures show nothing.
"""
import os
import pathlib
import re
import shutil
import statistics
import subprocess

import tools

CONTROL = "bare axum, again"

# Name: variant, row of the ratio.
ROWS = {
    "bare axum": ("axum,none,respond,none", None),
    CONTROL: ("axum,none,respond,none", "bare axum"),
    "no-op layer": ("axum,no_op,respond,none", "bare axum"),
    "tokio::spawn": ("axum,none,spawn,none", "bare axum"),
    "TaskTracker and info_span": ("axum,none,track,none", "bare axum"),
    "DeferLayer, nothing deferred": ("axum,defer,respond,none", "bare axum"),
    "around the router, nothing deferred": ("axum,defer-around,respond,none", "bare axum"),
    "DeferLayer, 1 callback": ("axum,defer,defer,none", "TaskTracker and info_span"),
    "handle held, 1 callback": ("axum,defer-handle,defer,none", "TaskTracker and info_span"),
    "axum_defer::serve, no layer": ("axum_defer,none,respond,none", "bare axum"),
    "axum_defer::serve, 1 callback":
        ("axum_defer,defer,defer,none", "TaskTracker and info_span"),
    "graceful axum_defer::serve, 1 callback":
        ("axum_defer-graceful,defer,defer,none", "TaskTracker and info_span"),
    "INFO, request span": ("axum,none,respond,info-span", "bare axum"),
    "INFO, request span, TaskTracker and info_span":
        ("axum,none,track,info-span", "INFO, request span"),
    "INFO, request span, DeferLayer, 1 callback":
        ("axum,defer,defer,info-span", "INFO, request span"),
}


def cpu_time(process):
    """Nanoseconds that the threads of a process ran."""
    tasks = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def request_time(name, process, port, seconds):
    """CPU time per request. A starved server may not answer at all, so this tries again."""
    for _ in range(5):
        before = cpu_time(process)
        command = ["wrk", "-t1", "-c64", f"-d{seconds}", f"http://127.0.0.1:{port}/"]
        printed = tools.output(command, **tools.pinned(tools.CORES[-1]))
        requests = int(re.search(r"(\d+) requests in", printed)[1])
        if "Non-2xx" not in printed and "Socket errors" not in printed and requests > 1_000:
            return (cpu_time(process) - before) / requests
        tools.progress(f"sockets: {name}: again, because of {requests} requests")
    raise SystemExit(f"sockets: {name}: {printed}")


def measure(rounds, seconds):
    binary = tools.build("cpu")
    servers = {}
    try:
        for name, (variant, _) in ROWS.items():
            server = subprocess.Popen([binary, "serve", variant, "1"], stdout=subprocess.PIPE,
                                      text=True, **tools.pinned(tools.CORES[0]))
            servers[name] = (server, int(server.stdout.readline()))
        for name, server in servers.items():
            request_time(name, *server, seconds)
        measured = []
        for number in range(rounds):
            tools.progress(f"sockets, round {number + 1} of {rounds}")
            measured.append({name: request_time(name, *servers[name], seconds)
                             for name in tools.shuffled(ROWS)})
        return measured
    finally:
        for server, _ in servers.values():
            server.terminate()
            server.wait()


def run(options, known):
    if not shutil.which("wrk"):
        print("\nskipped sockets: no wrk, which `apt-get install wrk` installs")
        return None
    if len(tools.CORES) < 2 or not os.path.exists("/proc/self/schedstat"):
        print("\nskipped sockets: this needs Linux and two cores")
        return None
    measured = measure(2 if options.quick else 10, 1)
    figures = {"ns": {}, "ratios": {}}
    print("\n| over sockets | CPU time per request, in ns | over | ratio (quartiles) | baseline |")
    print("|---|---|---|---|---|")
    for name, (_, base) in ROWS.items():
        ns = figures["ns"][name] = statistics.median(figures[name] for figures in measured)
        if not base:
            print(f"| {name} | {ns:,.0f} | | | |")
            continue
        ratio = [figures[name] / figures[base] for figures in measured]
        low, median, high = figures["ratios"][name] = tools.quartiles(ratio)
        before = known.get("ratios", {}).get(name)
        print(f"| {name} | {ns:,.0f} | {base} | {median:.3f} ({low:.3f} to {high:.3f}) | "
              f"{f'{before[1]:.3f}' if before else ''} |")
    return figures
