"""Draws where the bytes of a response are at each delivery level.

    python3 docs/pictures/when_it_fires.py            writes when_it_fires.svg beside this file
    python3 docs/pictures/when_it_fires.py --check    fails if that file is out of date

The picture is embedded in the docs as HTML, so its first tag is on a line of its own and no line is empty.
It has a background, so that it looks the same on a dark page. The shares are illustrative, not measured.
"""

import pathlib
import sys
from xml.sax.saxutils import escape

PLACES = [
    ["the handler", "and its body"],
    ["the server's", "buffers"],
    ["the kernel's", "send buffer"],
    ["in transit", ""],
    ["the client's", "kernel"],
    ["the client", ""],
]
# The places that end with the process.
IN_THE_PROCESS = 2

# Each moment: name, description, share of the response in each place, and callback start.
MOMENTS = [
    (
        "The handler has returned",
        "no byte was sent",
        [1.0, 0, 0, 0, 0, 0],
        None,
    ),
    (
        "Level::HandedOff",
        "the server has taken the last frame: if the process ends now, the rest is lost",
        [0, 0.62, 0.14, 0.04, 0.14, 0.06],
        "callbacks start under axum::serve",
    ),
    (
        "Level::Flushed",
        "the process holds no bytes of the response: the kernel sends the rest",
        [0, 0, 0.14, 0.04, 0.14, 0.68],
        "callbacks start under axum_defer::serve",
    ),
    (
        "The client has the response",
        "a server cannot detect this: only the client knows",
        [0, 0, 0, 0, 0, 1.0],
        None,
    ),
]

INK, FAINT, PAPER, BYTES, FIRES = "#1f2328", "#59636e", "#ffffff", "#2f6fde", "#b3261e"
FONT = 'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"'
LEFT, TOP, CELL, GAP, BAR, ROW = 24, 84, 112, 8, 30, 92
WIDTH = 2 * LEFT + len(PLACES) * CELL + (len(PLACES) - 1) * GAP
HEIGHT = TOP + len(MOMENTS) * ROW + 4


def text(x, y, words, size=13, fill=INK, anchor="start", weight="normal"):
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"'
        f' font-weight="{weight}">{escape(words)}</text>'
    )


def rect(x, y, width, height, fill, more=""):
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"{more}/>'


def left_of(place):
    return LEFT + place * (CELL + GAP)


BORDER = left_of(IN_THE_PROCESS) - GAP // 2


def border(top, bottom):
    return (
        f'<line x1="{BORDER}" y1="{top}" x2="{BORDER}" y2="{bottom}" stroke="{INK}"'
        ' stroke-width="1.5" stroke-dasharray="4 3"/>'
    )


def heading():
    for place, lines in enumerate(PLACES):
        middle = left_of(place) + CELL // 2
        for number, line in enumerate(line for line in lines if line):
            yield text(middle, 40 + 16 * number, line, anchor="middle", weight="600")
    yield border(10, 60)
    yield text(BORDER - 8, 20, "your process", 12, FAINT, "end")
    yield text(BORDER + 8, 20, "not your process", 12, FAINT)


def moment(number, name, meaning, shares, fires):
    top = TOP + number * ROW
    for place, share in enumerate(shares):
        x = left_of(place)
        yield rect(x, top, CELL, BAR, "#eef1f4", ' rx="4"')
        if share:
            yield rect(x, top, round(CELL * share), BAR, BYTES, ' rx="4"')
    yield border(top - 6, top + BAR + 6)
    yield text(LEFT, top + BAR + 20, name, 14, weight="600")
    if fires:
        yield text(WIDTH - LEFT, top + BAR + 20, fires, 13, FIRES, "end", "600")
    yield text(LEFT, top + BAR + 38, meaning, 13, FAINT)


def picture():
    title = "Bytes of a response at each delivery level"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
        f' role="img" aria-label="{title}" style="max-width: 100%; height: auto" {FONT}>',
        f"<title>{title}</title>",
        rect(0.5, 0.5, WIDTH - 1, HEIGHT - 1, PAPER, ' rx="8" stroke="#d1d9e0"'),
        *heading(),
    ]
    for number, what in enumerate(MOMENTS):
        lines += moment(number, *what)
    return "\n".join(lines + ["</svg>"]) + "\n"


def main():
    file = pathlib.Path(__file__).with_suffix(".svg")
    if sys.argv[1:] == ["--check"]:
        if not file.exists() or file.read_text() != picture():
            sys.exit(f"{file} is out of date: run the script and commit the file")
        print(f"{file.name} is up to date")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        file.write_text(picture())


if __name__ == "__main__":
    main()
