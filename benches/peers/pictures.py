"""A picture of the results, as SVG with its own background."""
from html import escape
from pathlib import Path

INTO = Path(__file__).resolve().parent.parent.parent / "docs" / "peers"
WIDTH, LEFT, RIGHT, BAR, STEP, TOP = 760, 260, 140, 22, 40, 64
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1f2328}"
    ".title{font-weight:600;font-size:16px}.note{fill:#59636e;font-size:12px}"
)


def bars(title, note, rows):
    """Rows are (name, share of the whole width, text beside it, colour)."""
    height = TOP + STEP * len(rows) + 8
    room = WIDTH - LEFT - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff" stroke="#d1d9e0"/>',
        f'<text class="title" x="16" y="28">{escape(title)}</text>',
        f'<text class="note" x="16" y="48">{escape(note)}</text>',
    ]
    for index, (name, share, text, colour) in enumerate(rows):
        y = TOP + STEP * index
        width = max(2, round(room * share))
        middle = y + BAR - 6
        parts += [
            f'<text x="{LEFT - 12}" y="{middle}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{room}" height="{BAR}" fill="#eff2f5"/>',
            f'<rect x="{LEFT}" y="{y}" width="{width}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{LEFT + room + 10}" y="{middle}">{escape(text)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def colour(name):
    return "#1a7f37" if name in ("defer", "completes") else "#6e7781"


def where_the_bytes_are(results):
    rows = []
    for name, found in results.items():
        told = found["slow_reader"]
        if told:
            share = told["mib_read"] / told["mib_in_all"]
            text = f"{told['mib_read']} MiB"
            rows.append((found["title"], share, text, colour(name)))
    return bars(
        "MiB of a 20 MiB download that a slow client had read when the callback began",
        "grey: still in the server, or in the buffers of the operating system",
        rows,
    )


def draw(results):
    INTO.mkdir(parents=True, exist_ok=True)
    (INTO / "where_the_bytes_are.svg").write_text(where_the_bytes_are(results))
