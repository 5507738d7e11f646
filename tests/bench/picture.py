"""Latency percentiles against load, as SVG."""
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 860, 520, 80, 60, 190, 70
COLOURS = {"local": "#7f7f7f", "nbd": "#9467bd", "remote": "#8c564b", "blockmirror": "#2ca02c",
           "quorum": "#1f77b4", "mirror": "#d62728"}
PERCENTILES = (("p50_us", "", "median"), ("p99_us", "6 4", "99th percentile"))


def latency_against_load(table, note):
    """A line for each target and percentile, a point for each queue depth of a 4 KiB write."""
    points = series(table)
    scale = Scale([point for line in points.values() for point in line])
    body = [*axes(scale)]
    for number, target in enumerate(sorted({target for target, _ in points})):
        colour = COLOURS.get(target, "#000000")
        for measure, dash, name in PERCENTILES:
            body += line(scale, points[target, measure], colour, dash)
        body += legend(number, target, colour)
    body.append(label(LEFT, 24, "4 KiB random writes: latency against load, depths 1 to 64", 16))
    body.append(label(LEFT, 42, "solid: median; dashed: 99th percentile", 12))
    body.append(label(LEFT, HEIGHT - 10, note, 9))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
            + "\n".join(body) + "</svg>\n")


def series(table):
    found = {}
    for entry in table:
        if not entry["case"].startswith("write-4k-qd"):
            continue
        for measure, _, _ in PERCENTILES:
            point = (entry["iops"]["median"], entry[measure]["median"])
            found.setdefault((entry["target"], measure), []).append(point)
    return {key: sorted(line) for key, line in found.items()}


class Scale:
    """Both axes are logarithmic."""

    def __init__(self, points):
        from math import log10
        self.log = log10
        self.x = self.span([x for x, _ in points])
        self.y = self.span([y for _, y in points])

    def span(self, values):
        values = [value for value in values if value > 0] or [1, 10]
        low, high = self.log(min(values)), self.log(max(values))
        return low - 0.1, max(high, low + 0.5) + 0.1

    def place(self, x, y):
        across = (self.log(x) - self.x[0]) / (self.x[1] - self.x[0])
        up = (self.log(y) - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def ticks(self, span):
        for exponent in range(-1, 9):
            for digit in (1, 2, 5):
                value = digit * 10 ** exponent
                if span[0] <= self.log(value) <= span[1]:
                    yield value


def axes(scale):
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="black"/>'
    for value in scale.ticks(scale.x):
        x, _ = scale.place(value, 10 ** scale.y[0])
        yield f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#dddddd"/>'
        yield label(x, bottom + 16, f"{value:g}", 10, "middle")
    for value in scale.ticks(scale.y):
        _, y = scale.place(10 ** scale.x[0], value)
        yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#dddddd"/>'
        yield label(LEFT - 6, y + 4, f"{value:g}", 10, "end")
    yield label((LEFT + right) / 2, bottom + 36, "writes per second", 12, "middle")
    yield label(16, TOP - 8, "microseconds", 12)


def line(scale, points, colour, dash):
    places = [scale.place(x, y) for x, y in points if x > 0 and y > 0]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'


def legend(number, target, colour):
    y = TOP + 20 + number * 20
    x = WIDTH - RIGHT + 20
    yield f'<path d="M{x} {y}h24" stroke="{colour}" stroke-width="2"/>'
    yield label(x + 30, y + 4, target, 12)


def label(x, y, words, size, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(words)}</text>'
