"""What the parts of scripts/bench measured: medians and spreads, and whether a goal is met."""
import statistics

RELATIONS = {"at-least": (">=", lambda value, goal: value >= goal), "at-most": ("<=", lambda value, goal: value <= goal)}


def summary(rows):
    """One entry for each case, in the order of measuring."""
    groups = {}
    for row in rows:
        groups.setdefault((row["part"], row["case"]), []).append(row)
    return [entry(part, case, group) for (part, case), group in groups.items()]


def entry(part, case, group):
    values = [row["value"] for row in group]
    found = {"part": part, "case": case, "unit": group[0]["unit"],
             "median": statistics.median(values), "min": min(values), "max": max(values)}
    for relation, goal in group[0].get("goal", {}).items():
        found |= {"relation": relation, "goal": goal, "met": RELATIONS[relation][1](found["median"], goal)}
    return found


def lines(table):
    yield ["part", "case", "median [min..max]", "unit", "goal", "met"]
    for row in table:
        goal, met = "", ""
        if "goal" in row:
            goal = f"{RELATIONS[row['relation']][0]} {row['goal']:g}"
            met = "yes" if row["met"] else "no"
        values = " ".join([number(row["median"]), f"[{number(row['min'])}..{number(row['max'])}]"])
        yield [row["part"], row["case"], values, row["unit"], goal, met]


def number(value):
    """Three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
