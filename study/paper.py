"""The paper's numbers (arXiv 2606.04272): its model 1B-50B on GSM8K, percent unless said otherwise.

A line of a table is a checkpoint, a column a recipe. A cell has several values joined by slashes;
"-" stands where the paper gives none.
"""

PASSES = ("pass@1", "pass@8", "pass@32")

# pass@1 / pass@8 / pass@32; RL is its best seed.
FIGURE2 = """
tokens  base            sft             sft.rl          rl
2B      1.34/6.1/13.8   9.2/26.7/45.0   20.1/29.7/36.4  2.5/10.8/20.5
4B      2.41/10.2/25.0  15.4/35.5/51.9  27.6/41.2/49.7  15.3/26.9/35.3
6B      2.41/14.3/34.5  18.8/40.4/56.0  -               19.8/34.0/45.2
10B     4.08/20.2/42.4  24.4/47.5/63.8  40.7/53.8/60.6  30.2/49.4/61.1
12B     3.17/18.1/40.8  25.8/49.0/64.1  -               36.3/53.1/63.2
14B     4.24/22.8/46.7  28.0/52.6/68.8  -               38.6/57.6/68.8
20B     7.26/31.9/55.5  31.6/56.1/70.2  48.5/59.6/65.3  47.4/65.5/73.5
28B     10.4/37.2/60.3  35.5/59.3/71.8  53.2/65.8/71.3  52.0/69.6/78.5
44B     14.8/46.0/67.5  37.7/60.7/73.8  53.6/64.8/70.3  55.8/72.7/80.4
"""

# pass@1 / pass@8 / pass@32; its base and RL are those of figure 2.
FIGURE3 = """
tokens  sft-gold        sft-gold.rl
2B      27.3/52.8/69.5  34.9/48.1/56.2
4B      35.0/60.8/74.7  -
6B      38.9/65.3/78.6  46.0/59.3/66.4
10B     44.2/69.3/81.6  49.8/61.4/67.3
12B     45.4/70.8/82.4  51.9/63.4/69.8
14B     46.9/72.4/84.0  -
20B     50.2/74.9/83.8  54.6/66.3/72.4
28B     51.2/76.7/86.0  -
44B     54.1/78.7/87.8  60.3/70.0/75.1
"""

# Mean of LAMBADA, HellaSwag, ARC-E, ARC-C, PIQA and OBQA; RL is the mean over seeds.
FIGURE7 = """
tokens  base  rl    sft   sft-gold
2B      32.2  -     29.2  29.9
4B      37.4  37.5  32.9  32.3
6B      38.5  38.6  33.7  34.3
10B     41.4  41.3  36.5  37.1
12B     42.6  42.6  36.6  38.0
14B     42.8  43.1  37.6  37.7
20B     44.3  44.4  39.5  38.5
28B     45.2  45.4  40.1  39.3
44B     47.2  47.6  41.1  40.1
"""

# pass@1 / pass@8 / pass@32 / mean of five benchmarks.
FIGURE9 = """
t   base                sft                 sft.rl           rl                  parallel
6B  2.4/14.3/34.5/41.0  18.8/40.4/56.0/35.4 -                19.9/34.2/45.9/41.0 17.5/42.5/62.3/40.7
10B 3.7/19.3/41.0/44.2  24.4/47.5/63.8/38.2 40.7/53.8/60.6/- 29.8/49.1/61.5/44.2 27.2/54.2/71.0/44.7
20B 7.8/31.3/54.3/47.1  31.6/56.1/70.2/41.6 48.5/59.6/65.3/- 47.4/63.9/72.8/47.4 36.2/63.1/77.5/47.3
28B 10.9/37.5/58.8/48.1 35.5/59.3/71.8/42.4 53.2/65.8/71.3/- 51.9/69.4/78.7/48.3 43.3/69.9/83.1/48.6
44B 14.8/46.0/67.5/50.3 37.7/60.7/73.8/43.5 53.6/64.8/70.3/- 54.8/72.0/80.6/50.8 47.9/73.2/84.5/49.7
"""

# Direct RL: the greedy validation reward, as step:share, at each checkpoint.
FIGURE13 = """
2B   20:.019 100:.020 200:.024 400:.024 565:.022
4B   20:.012 100:.021 200:.048 400:.100 600:.153 800:.196 1000:.215 1555:.253
6B   20:.016 100:.081 200:.147 400:.232 600:.280
10B  20:.019 100:.114 200:.218 400:.290 600:.335 800:.383 1000:.416 1160:.428
12B  20:.070 100:.259 200:.320 400:.380 600:.429 800:.453 1000:.449 1400:.491
14B  20:.094 100:.277 200:.320 400:.405 600:.435 800:.466 1000:.482 1150:.502
20B  20:.196 100:.367 200:.438 400:.487 600:.523 800:.549 1000:.572 1540:.609
28B  20:.280 100:.435 200:.491 400:.549 600:.579 800:.600 1000:.643 1220:.654
44B  20:.370 100:.507 200:.564 400:.629 600:.637 800:.665 1000:.670 1040:.675
"""

# Figure 6, at 14B tokens: pass@1 and pass@32 from stage to stage; RL every 200 steps.
PAPER_PATHS = [
    [
        ("base", 3.8, 45.5),
        ("sft", 33.4, 79.9),
        ("sft.rl", 47.0, 77.2),
        ("sft.rl", 47.9, 75.4),
        ("sft.rl", 49.1, 74.9),
    ],
    [
        ("base", 3.8, 45.5),
        ("rl", 28.8, 67.2),
        ("rl", 33.4, 68.5),
        ("rl", 36.0, 68.0),
        ("rl", 37.7, 66.9),
        ("rl", 38.6, 68.8),
    ],
]


def read_table(text: str, *quantities: str) -> dict[str, dict[str, dict[str, float]]]:
    """-> recipe -> checkpoint -> quantity -> value, each only where the paper gives it."""
    header, *lines = text.strip().splitlines()
    recipes = header.split()[1:]
    found = {recipe: {} for recipe in recipes}
    for line in lines:
        stem, *cells = line.split()
        for recipe, cell in zip(recipes, cells):
            values = {}
            for quantity, value in zip(quantities, cell.split("/")):
                if value != "-":
                    values[quantity] = float(value)
            if values:
                found[recipe][stem] = values
    return found


def read_curves(text: str) -> dict[str, dict[int, float]]:
    """-> checkpoint -> step -> value."""
    curves = {}
    for line in text.strip().splitlines():
        stem, *points = line.split()
        curves[stem] = {}
        for point in points:
            step, value = point.split(":")
            curves[stem][int(step)] = float(value)
    return curves


PAPER = {
    "figure2": read_table(FIGURE2, *PASSES),
    "figure3": read_table(FIGURE3, *PASSES),
    "figure7": read_table(FIGURE7, "general"),
    "figure9": read_table(FIGURE9, *PASSES, "general"),
}
for recipe in ("base", "rl"):
    PAPER["figure3"][recipe] = PAPER["figure2"][recipe]
PAPER_REWARD = read_curves(FIGURE13)


def paper_difference(a: str, b: str) -> str:
    """Recipe a minus recipe b at the paper's last checkpoint, 44B tokens: pass@1 / pass@32.

    Figure 9 where parallel is one of them, else figure 2; what these do not have is in figure 3.
    """
    figure = "figure9" if "parallel" in (a, b) else "figure2"
    at_44B = {}
    for recipe in (a, b):
        curves = PAPER[figure] if recipe in PAPER[figure] else PAPER["figure3"]
        at_44B[recipe] = curves[recipe]["44B"]
    differences = []
    for quantity in ("pass@1", "pass@32"):
        difference = at_44B[a][quantity] - at_44B[b][quantity]
        differences.append(f"{difference:+.1f}")
    return " / ".join(differences)
