"""What came out of each experiment, in one sentence with its numbers and their 95 % intervals.

A hole {pass@1: after - before} is filled with what changed, as in "rises by 38.4 [32.0, 44.8]
points"; {=pass@1: one - other} compares two cells, as in "is 3.1 [0.2, 6.0] points lower". The
sentences stand in the report and above the figures.
"""

import re
import textwrap

from study.estimates import Estimate, direction
from study.predictions import read_terms, value_of
from study.rows import Study

HOLE = re.compile(r"\{(=?)([^:}]+): (\S+) - (\S+)\}")
IN_NATS = "heldout_loss"


def hard(stem: str) -> str:
    """What direct RL and RL after SFT do on the hard family."""
    sft = f"{stem}.hard-sft"
    return (
        f"On the hard family, from {stem}: with direct RL "
        f"pass@1 {{pass@1: {stem}.hard-rl - {stem}}} and "
        f"pass@32 {{pass@32: {stem}.hard-rl - {stem}}}; with RL after SFT "
        f"pass@1 {{pass@1: {sft}.rl - {sft}}} and pass@32 {{pass@32: {sft}.rl - {sft}}}."
    )


ANSWERS = {
    "controls": (
        "For a random reward pass@1 {pass@1: 3.6M.rl-random - 3.6M}, for a well-formed answer "
        "alone it {pass@1: 3.6M.rl-format - 3.6M}, for a right answer it "
        "{pass@1: 3.6M.rl - 3.6M}."
    ),
    "alone": (
        "The shape (3,2): trained alone, its pass@32 {pass@32[3,2]: 3.6M.rl-32-50 - 3.6M}; in "
        "a batch with all shapes it {pass@32[3,2]: 3.6M.rl - 3.6M}."
    ),
    "ladder": (
        "With RL after one pass of SFT pass@32 {pass@32: 3.6M.sft-1.rl - 3.6M.sft-1}, after "
        "16 passes it {pass@32: 3.6M.sft.rl - 3.6M.sft}, after 61 it "
        "{pass@32: 3.6M.sft-61.rl - 3.6M.sft-61}."
    ),
    "intensity": (
        "With 300 steps of RL after SFT pass@32 {pass@32: 3.6M.sft.rl - 3.6M.sft}, with 600 it "
        "{pass@32: 3.6M.sft.rl-600 - 3.6M.sft}."
    ),
    "rate": (
        "With RL after SFT at its own rate pass@32 {pass@32: 3.6M.sft.rl - 3.6M.sft}; at twice the "
        "rate it {pass@32: 3.6M.sft.rl-2x - 3.6M.sft}, at four times it "
        "{pass@32: 3.6M.sft.rl-4x - 3.6M.sft}, and at eight times it "
        "{pass@32: 3.6M.sft.rl-8x - 3.6M.sft}, while pass@1 "
        "{pass@1: 3.6M.sft.rl-8x - 3.6M.sft}."
    ),
    "edge": (
        "With RL inside what pre-training taught (1 % of it at the edge) pass@1 over all bands "
        "{pass@1: d1.rl-inside - d1}, and pass@128 {pass@128: d1.rl-inside - d1}. With RL at the "
        "edge verified pass@1 there {verified@1[edge]: d1.rl-edge - d1}, and its pass@128 "
        "{verified@128[edge]: d1.rl-edge - d1}. With RL beyond the edge, pass@128 there "
        "{verified@128[beyond]: d1.rl-beyond - d1}."
    ),
    "further": (
        "With RL after SFT, both on problems of 3 and 4 operations, pass@1 over the whole test "
        "{pass@1: d1.sft-inside.rl-inside - d1.sft-inside}, and pass@128 "
        "{pass@128: d1.sft-inside.rl-inside - d1.sft-inside}."
    ),
    "border": (
        "With 6 groups of 64 rollouts a step instead of 96 of 4 pass@1 "
        "{=pass@1: 3.6M.rl-6x64 - 3.6M.rl-96x4}, and pass@32 of the shape (3,2) "
        "{=pass@32[3,2]: 3.6M.rl-6x64 - 3.6M.rl-96x4}."
    ),
    "normalise": (
        "With advantages divided by the mean reward, not by its deviation, pass@1 "
        "{=pass@1: 3.6M.rl-mean - 3.6M.rl} and pass@32 {=pass@32: 3.6M.rl-mean - 3.6M.rl}; "
        "not divided at all pass@1 {=pass@1: 3.6M.rl-none - 3.6M.rl} and pass@32 "
        "{=pass@32: 3.6M.rl-none - 3.6M.rl}."
    ),
    "forgetting": (
        "After SFT at 1e-3 the loss on general text {heldout_loss: 3.6M.sft - 3.6M}, after RL at "
        "1e-4 it {heldout_loss: 3.6M.rl-1e-4 - 3.6M}; how far the two have moved from the base is "
        "in the figure."
    ),
    "length": (
        "In 300 more steps pass@1 of direct RL {pass@1: 1.5M.rl-600 - 1.5M.rl} from 1.5M, and "
        "{pass@1: 3.6M.rl-600 - 3.6M.rl} from 3.6M; that of parallel averaging "
        "{pass@1: 3.6M.parallel-600 - 3.6M.parallel} from 3.6M."
    ),
    "tail": (
        "With RL pass@1 {pass@1: 3.6M.rl.draw-1 - 3.6M.draw-1}, pass@32 "
        "{pass@32: 3.6M.rl.draw-1 - 3.6M.draw-1}, and pass@256 "
        "{pass@256: 3.6M.rl.draw-1 - 3.6M.draw-1}."
    ),
    "figure4": (
        "On the hard family pass@1 with direct RL {pass@1: 3.6M.hard-rl - 3.6M} from the "
        "plain mix, {pass@1: targeted-5.4M.hard-rl - targeted-5.4M} from more targeted data, "
        "and {pass@1: large-3.6M.hard-rl - large-3.6M} from four times the weights."
    ),
    "figure10": hard("3.6M"),
    "figure11": hard("targeted-5.4M"),
    "figure12": hard("large-3.6M"),
    "figure15": (
        "From 1 pass of SFT to 16 pass@1 {pass@1: 3.6M.sft - 3.6M.sft-1}; from 16 to 61 "
        "pass@32 {pass@32: 3.6M.sft-61 - 3.6M.sft}, and the mean of general skills "
        "{general: 3.6M.sft-61 - 3.6M.sft}."
    ),
    "figure16": (
        "With eight worked examples before the problem pass@1 "
        "{pass@1: wide-3.6M.shots-8 - wide-3.6M.shots-0}, and pass@32 "
        "{pass@32: wide-3.6M.shots-8 - wide-3.6M.shots-0}."
    ),
    "figure17": (
        "With a rate of 1e-5 in the SFT half, not 1e-3, pass@1 "
        "{=pass@1: 3.6M.parallel-low - 3.6M.parallel-high}, pass@32 "
        "{=pass@32: 3.6M.parallel-low - 3.6M.parallel-high}, and the loss on general text "
        "{=heldout_loss: 3.6M.parallel-low - 3.6M.parallel-high}."
    ),
    "figure18": (
        "With 64 rollouts a problem, not 5, pass@1 {=pass@1: 3.6M.hard-n64 - 3.6M.hard-n5} "
        "when trained on hard problems, and {=pass@1: 3.6M.easy-n64 - 3.6M.easy-n5} when "
        "trained on easy ones."
    ),
    "settings": (
        "As the authors' code ran, against our setting, pass@32 of direct RL "
        "{=pass@32: 3.6M.run-rl - 3.6M.controlled-rl}, and that of RL after SFT "
        "{=pass@32: 3.6M.run-sft.rl - 3.6M.controlled-sft.rl}; with four times the rate of RL "
        "after SFT alone it {=pass@32: 3.6M.controlled-sft.rl-fast - 3.6M.controlled-sft.rl}."
    ),
    "weight": (
        "From 3.6M, against equal weights, pass@1 "
        "{=pass@1: 3.6M.parallel-line - 3.6M.parallel-50} with a weight of RL that grows from "
        "0 to 1, and {=pass@1: 3.6M.parallel-adapt - 3.6M.parallel-50} with one that follows "
        "the signal; with rollouts for problems of mixed outcome pass@1 of direct RL "
        "{=pass@1: 3.6M.rl-probe - 3.6M.rl-150} at equal rollouts, and "
        "{=pass@1: 3.6M.rl-probe-180 - 3.6M.rl-150} at equal FLOPs."
    ),
    "losses": (
        "Against plain GRPO pass@32 {=pass@32: 3.6M.rl-dr-grpo - 3.6M.rl-150} with Dr. GRPO, "
        "{=pass@32: 3.6M.rl-dapo - 3.6M.rl-150} with DAPO, "
        "{=pass@32: 3.6M.rl-dapo-free - 3.6M.rl-150} with DAPO less its punishment of length, "
        "{=pass@32: 3.6M.rl-maxrl - 3.6M.rl-150} with MaxRL, and "
        "{=pass@32: 3.6M.rl-pass8 - 3.6M.rl-150} with the advantages of pass@8."
    ),
}


def answer(study: Study, name: str) -> str:
    """The experiment's sentence; "" where it has none, or a number of it is not there."""
    sentence = ANSWERS.get(name, "")
    for hole in HOLE.finditer(sentence):
        compares, quantity, after, before = hole.groups()
        rule = f"{quantity}({after}) - {quantity}({before})"
        estimate = value_of(study, read_terms(rule, f"the answer of {name}"))
        if estimate is None:
            return ""
        unit = "nats a token" if quantity == IN_NATS else "points"
        words = compared(estimate, unit) if compares else changed(estimate, unit)
        sentence = sentence.replace(hole[0], words)
    return sentence


def changed(estimate: Estimate, unit: str) -> str:
    """ "rises by 38.4 [32.0, 44.8] points"."""
    verbs = {"higher": "rises", "lower": "falls"}
    open_words = what_is_open(estimate)
    if open_words:
        return f"changes by {number(estimate, unit, signed=True)} {unit} ({open_words})"
    return f"{verbs[direction(estimate)]} by {number(estimate, unit)} {unit}"


def compared(estimate: Estimate, unit: str) -> str:
    """ "is 3.1 [0.2, 6.0] points lower"."""
    open_words = what_is_open(estimate)
    if open_words:
        return f"differs by {number(estimate, unit, signed=True)} {unit} ({open_words})"
    return f"is {number(estimate, unit)} {unit} {direction(estimate)}"


def what_is_open(estimate: Estimate) -> str:
    """ "" where the interval leaves out 0, and counts the luck of seeds."""
    if len(estimate.of_seeds) < 2:
        return "one seed"
    return "undecided" if direction(estimate) == "undecided" else ""


def number(estimate: Estimate, unit: str, signed: bool = False) -> str:
    """The mean and its interval; without a sign, what falls is told by how much."""
    digits = 1 if unit == "points" else 3
    if signed or estimate.mean > 0:
        return estimate.with_interval(digits, sign="+" if signed else "")
    low, high = estimate.interval()
    return f"{-estimate.mean:.{digits}f} [{-high:.{digits}f}, {-low:.{digits}f}]"


def title(question: str, found: str, inches: float) -> str:
    """Of a figure so wide: the question, and below it what came out."""
    lines = [question]
    if found:
        lines += textwrap.wrap(found, width=int(12 * inches))
    return "\n".join(lines)
