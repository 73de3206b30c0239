"""Every way to spend 40% of the published grid's steps: how near each comes to the grid's answer.

    python benchmarks/laws_design_every.py --every 2

One run per share (0.5, 0.625, 0.75, 0.875), each to a whole thousand of steps or not made, 16,000 steps in all, two
shares or more: 745 designs of the experiment that `laws_design.py --published` describes. `--every k` takes each k-th.
"""

import argparse
import itertools

import numpy as np
from laws_design import BUDGET, STEPS, WITHIN, read_published


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1)
    asked = parser.parse_args()
    question, rows, per_step = read_published()
    full = question.believe([one for part in rows.values() for one in part])
    shares, most = sorted(rows), round(BUDGET * len(rows) * STEPS[-1])
    designs = [
        steps
        for steps in itertools.product((0, *STEPS), repeat=len(shares))
        if sum(steps) == most and np.count_nonzero(steps) > 1
    ][:: asked.every]
    away, covered = [], []
    for steps in designs:
        seen = [o for x, to in zip(shares, steps, strict=True) for o in rows[x] if o.tokens <= to * per_step]
        belief = question.believe(seen)
        low, high = np.quantile(belief.best, [0.05, 0.95])
        away.append(abs(belief.median - full.median))
        covered.append(low <= full.median <= high)
    made, near = np.array(designs), np.array(away) <= WITHIN
    print(f"grid r* {full.median:.3f}; {len(made)} designs: within {WITHIN:g} {near.mean():.0%}, ", end="")
    print(f"90% interval holds the grid's r* {np.mean(covered):.0%}")
    for k, share in enumerate(shares):
        for low, high in ((0, 2000), (3000, 6000), (7000, 10_000)):
            part = (made[:, k] >= low) & (made[:, k] <= high)
            print(
                f"  {share:g} to {low}..{high}: {part.sum()} designs, median {np.median(np.array(away)[part]):.3f}, ",
                end="",
            )
            print(f"within {WITHIN:g} {near[part].mean():.0%}")


if __name__ == "__main__":
    main()
