"""Reference values for the analyzer's unit tests, from SciPy, statsmodels and NumPy.

Run: python -m venv venv && venv/bin/pip install numpy scipy statsmodels && venv/bin/python tests/calibration/reference.py
Prints the numbers that stand in the tests of analyzer/src/stats and analyzer/src/invariants.rs.
"""

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests


def normal():
    for x in (-5.0, -1.5, 0.3):
        print(f"normal cdf({x}) = {stats.norm.cdf(x)!r}")
    print(f"normal quantile(.95) = {stats.norm.ppf(0.95)!r}")


def holm():
    print("holm =", multipletests([0.01, 0.04, 0.03, 0.005, 0.5], method="holm")[1].tolist())


def sign_flips():
    contrasts = np.array([-0.4, -0.1, 0.2, -0.7, 0.05, -0.3, -0.25, 0.1, -0.6, -0.15])
    result = stats.permutation_test(
        (contrasts,),
        lambda x, axis: x.mean(axis=axis) / (x.std(axis=axis, ddof=1) / np.sqrt(x.shape[axis])),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="less",
        vectorized=True,
    )
    print(f"enumerated sign flips, studentised: p = {result.pvalue!r}")
    print(f"binom.cdf(2, 12, .5) = {stats.binom.cdf(2, 12, 0.5)!r}, binom.cdf(14, 40, .5) = {stats.binom.cdf(14, 40, 0.5)!r}")


def studentised_relabelling(draws=400_000):
    """Within-session relabelling of 3 + 3 binary trials, 30 sessions."""
    before = np.array([[1, 1, 1]] * 18 + [[1, 1, 0]] * 12)
    after = np.array([[1, 1, 1]] * 15 + [[1, 1, 0]] * 11 + [[1, 0, 0]] * 4)
    pooled = np.hstack([before, after])
    generator = np.random.default_rng(1)

    def t(b, a):
        d = a.mean(axis=-1) - b.mean(axis=-1)
        return d.mean(axis=-1) / np.sqrt(d.var(axis=-1, ddof=1) / d.shape[-1])

    observed = t(before, after)
    hits = 0
    for _ in range(draws // 1000):
        order = generator.permuted(np.broadcast_to(pooled, (1000, *pooled.shape)), axis=-1)
        hits += int((t(order[..., :3], order[..., 3:]) <= observed + 1e-12).sum())
    print(f"within-session relabelling: p = {(hits + 1) / (draws + 1):.5f}")


def gaffke(draws=1_000_000):
    mixed = np.array([[0.2, 0.0, -0.2, 0.0, 0.1][k % 5] for k in range(40)])
    spread = np.array([-0.9 if k % 17 == 0 else 0.02 * (k % 7) for k in range(100)])
    generator = np.random.default_rng(7)
    for name, contrasts in (("mixed", mixed), ("spread", spread)):
        weights = np.append(contrasts, -1.0) + 0.05
        hits = 0
        for _ in range(draws // 10_000):
            hits += int((generator.exponential(size=(10_000, len(weights))) @ weights <= 0).sum())
        print(f"gaffke {name}: p = {hits / draws:.5f}")
    print(f"beta.ppf(.05, 97, 4) = {stats.beta.ppf(0.05, 97, 4)!r}")


def bounds():
    print(f"beta.ppf(.95, 1, 299) = {stats.beta.ppf(0.95, 1, 299)!r}, beta.ppf(.95, 4, 97) = {stats.beta.ppf(0.95, 4, 97)!r}")
    print(f"var = {np.var([0.1, 0.4, -0.2, 0.9], ddof=1)!r}")


if __name__ == "__main__":
    normal()
    holm()
    sign_flips()
    studentised_relabelling()
    gaffke()
    bounds()
