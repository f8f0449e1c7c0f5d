"""Files and functions of this crate that a request enters: a debug build under callgrind.

Callgrind's profile of one more request shows which functions it entered. Generated destructors of
values that contain this crate's types count as functions.
"""
import pathlib
import re
import shutil
import subprocess
import tempfile

import tools

VARIANTS = {
    "nothing deferred": "axum,defer,respond,none",
    "one named callback": "axum,defer,named,none",
    "axum_defer::serve, one named callback": "axum_defer,defer,named,none",
}
# Requests before and after. The first request includes setting up the layer.
REQUESTS = {"first request": (0, 1), "third request": (2, 3)}

SOURCES = str(tools.BENCHES.parent / "src") + "/"
DESTRUCTOR = re.compile(r"drop_in_place<.*\baxum_defer::")


def costs(profile):
    """Instructions by file and function. Lines after `calls=` belong to the called function."""
    found, file, function, is_call = {}, "", "", False
    for line in profile.splitlines():
        if line.startswith("fl="):
            file = line[3:]
        elif line.startswith("fn="):
            function = line[3:]
        elif line.startswith("calls="):
            is_call = True
        elif line[:1].isdigit():
            if not is_call:
                key = file, function
                found[key] = found.get(key, 0) + int(line.split()[1])
            is_call = False
    return found


def profile(binary, variant, requests):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "profile"
        command = ["valgrind", "--tool=callgrind", "--compress-strings=no", "--compress-pos=no",
                   f"--callgrind-out-file={path}", binary, "count", variant, str(requests)]
        subprocess.run(command, check=True, capture_output=True)
        return costs(path.read_text())


def entered(before, after):
    grown = {key for key, cost in after.items() if cost > before.get(key, 0)}
    own = {(file, function) for file, function in grown if file.startswith(SOURCES)}
    destructors = {function for _, function in grown if DESTRUCTOR.search(function)}
    files = sorted({file.removeprefix(SOURCES) for file, _ in own})
    return files, sorted({function for _, function in own} | destructors)


def run(_options, known):
    if not shutil.which("valgrind"):
        print("\nskipped trace: no valgrind")
        return None
    tools.progress("trace: building without optimizations")
    binary = tools.build("cpu", "--profile", "dev", CARGO_PROFILE_DEV_DEBUG="line-tables-only")
    figures = {"entered": {}}
    for name, variant in VARIANTS.items():
        for which, counts in REQUESTS.items():
            files, functions = entered(*(profile(binary, variant, count) for count in counts))
            figures["entered"][f"{name}, {which}: files"] = len(files)
            figures["entered"][f"{name}, {which}: functions"] = len(functions)
    tools.table("entered by one request", figures["entered"], known.get("entered", {}))
    return figures
