"""Reference values from SciPy, statsmodels and NumPy.

Without standard input: prints the numbers that stand in the unit tests of analyzer/src/stats and analyzer/src/invariants.rs.
With `{"figure": ..., "input": ...}` on standard input: prints the values of that figure as JSON, for the calibration test.

Run: python -m venv venv && venv/bin/pip install -r tests/calibration/requirements.txt && venv/bin/python tests/calibration/reference.py
"""

import json
import sys

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests


# === the numbers of unit tests ===


def normal():
    for x in (-5.0, -1.5, 0.3):
        print(f"normal cdf({x}) = {stats.norm.cdf(x)!r}")
    print(f"normal quantile(.95) = {stats.norm.ppf(0.95)!r}")


def holm():
    print("holm =", multipletests([0.01, 0.04, 0.03, 0.005, 0.5], method="holm")[1].tolist())


def sign_flips():
    contrasts = np.array([-0.4, -0.1, 0.2, -0.7, 0.05, -0.3, -0.25, 0.1, -0.6, -0.15])
    print(f"enumerated sign flips, studentised: p = {enumerated(contrasts)!r}")
    print(f"binom.cdf(2, 12, .5) = {stats.binom.cdf(2, 12, 0.5)!r}, binom.cdf(14, 40, .5) = {stats.binom.cdf(14, 40, 0.5)!r}")


def studentised(x, axis):
    return x.mean(axis=axis) / (x.std(axis=axis, ddof=1) / np.sqrt(x.shape[axis]))


def enumerated(contrasts):
    result = stats.permutation_test(
        (contrasts,), studentised, permutation_type="samples", n_resamples=np.inf, alternative="less", vectorized=True
    )
    return float(result.pvalue)


def studentised_relabelling(draws=400_000):
    """Within-session relabelling of 3 + 3 binary trials, 30 sessions."""
    before = np.array([[1, 1, 1]] * 18 + [[1, 1, 0]] * 12)
    after = np.array([[1, 1, 1]] * 15 + [[1, 1, 0]] * 11 + [[1, 0, 0]] * 4)
    print(f"within-session relabelling: p = {relabelled(before, after, draws):.5f}")


def relabelled(before, after, draws, seed=1):
    pooled = np.hstack([before, after])
    generator = np.random.default_rng(seed)
    trials = before.shape[1]

    def t(b, a):
        d = a.mean(axis=-1) - b.mean(axis=-1)
        return d.mean(axis=-1) / np.sqrt(d.var(axis=-1, ddof=1) / d.shape[-1])

    observed = t(before, after)
    hits = 0
    for _ in range(draws // 1000):
        order = generator.permuted(np.broadcast_to(pooled, (1000, *pooled.shape)), axis=-1)
        hits += int((t(order[..., :trials], order[..., trials:]) <= observed + 1e-12).sum())
    return (hits + 1) / (draws + 1)


def gaffke(draws=1_000_000):
    mixed = np.array([[0.2, 0.0, -0.2, 0.0, 0.1][k % 5] for k in range(40)])
    spread = np.array([-0.9 if k % 17 == 0 else 0.02 * (k % 7) for k in range(100)])
    for name, contrasts in (("mixed", mixed), ("spread", spread)):
        print(f"gaffke {name}: p = {gaffke_p(contrasts, 0.05, draws):.5f}")
    print(f"beta.ppf(.05, 97, 4) = {stats.beta.ppf(0.05, 97, 4)!r}")


def gaffke_p(contrasts, margin, draws, low=-1.0, seed=7):
    weights = np.append(contrasts, low) + margin
    generator = np.random.default_rng(seed)
    hits = 0
    for _ in range(draws // 10_000):
        hits += int((generator.exponential(size=(10_000, len(weights))) @ weights <= 0).sum())
    return hits / draws


def bounds():
    print(f"beta.ppf(.95, 1, 299) = {stats.beta.ppf(0.95, 1, 299)!r}, beta.ppf(.95, 4, 97) = {stats.beta.ppf(0.95, 4, 97)!r}")
    print(f"var = {np.var([0.1, 0.4, -0.2, 0.9], ddof=1)!r}")


# === the figures of the acceptance table ===


def figure_n1(points):
    """Distributions: the value at each point."""
    of = {
        "normal_cdf": stats.norm.cdf,
        "normal_quantile": stats.norm.ppf,
        "t_cdf": stats.t.cdf,
        "t_quantile": stats.t.ppf,
        "beta_cdf": stats.beta.cdf,
        "beta_quantile": stats.beta.ppf,
        "binomial_cdf": stats.binom.cdf,
        "binomial_quantile": stats.binom.ppf,
    }
    return {name: of[name](*np.array(arguments).T).tolist() for name, arguments in points.items()}


def figure_n2(sessions):
    """Standard errors of a mean of trials clustered in sessions: statsmodels, and the formula of Inspect AI."""
    import statsmodels.api as sm

    values = np.array(sessions)
    count, trials = values.shape
    groups = np.repeat(np.arange(count), trials)
    flat = values.ravel()
    fit = sm.OLS(flat, np.ones_like(flat)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    # inspect_ai.scorer stderr(cluster=...): sum over clusters of outer products of residuals, times C / (C - 1).
    residuals = (values - flat.mean()).sum(axis=1)
    inspect = np.sqrt((residuals**2).sum() * count / (count - 1)) / flat.size
    return {"statsmodels": float(fit.bse[0]), "inspect": float(inspect)}


def figure_n3(lists):
    return {
        method: [multipletests(p_values, method=name)[1].tolist() for p_values in lists]
        for method, name in (("holm", "holm"), ("bh", "fdr_bh"))
    }


def figure_n4(cases):
    def tails(test):
        return {name: float(test(name).pvalue) for name in ("less", "greater", "two-sided")}

    answers = []
    for case in cases:
        x, y = np.array(case["x"]), np.array(case["y"])
        table = np.array(case["table"]).reshape(2, 2)
        answers.append(
            {
                "t": tails(lambda name: stats.ttest_rel(x, y, alternative=name)),
                "mann_whitney": tails(lambda name: stats.mannwhitneyu(x, y, alternative=name, method="asymptotic")),
                "wilcoxon": tails(lambda name: stats.wilcoxon(x, y, alternative=name, method="approx")),
                "fisher": tails(lambda name: stats.fisher_exact(table, alternative=name)),
            }
        )
    return answers


def figure_n6(lists):
    return [enumerated(np.array(contrasts)) for contrasts in lists]


def figure_n8(input):
    return [gaffke_p(np.array(case["contrasts"]), case["margin"], input["draws"], case["low"], seed) for seed, case in enumerate(input["cases"])]


def figure_block(cases):
    """The block test by brute force, on binary trials."""
    return [relabelled(np.array(case["before"]), np.array(case["after"]), case["draws"]) for case in cases]


def figure_n9(input):
    """Logarithm of betting capital: confseq where it is installed (its build needs Boost), else its definition in NumPy."""
    truncation = input["truncation"]

    def stake(x, m):
        # aGRAPA (Waudby-Smith and Ramdas 2024), one made-up observation of mean 1/2 and variance 1/4 in front.
        t = np.arange(1, len(x) + 1)
        mean = (0.5 + np.cumsum(x)) / (t + 1)
        variance = (0.25 + np.cumsum((x - mean) ** 2)) / (t + 1)
        mean, variance = np.append(0.5, mean[:-1]), np.append(0.25, variance[:-1])
        return (mean - m) / (variance + (mean - m) ** 2)

    try:
        from confseq.betting import betting_mart

        source = "confseq"

        def above(x, m):
            return betting_mart(x, m, lambdas_fn_positive=lambda x, m: np.maximum(stake(x, m), 0), theta=1, trunc_scale=truncation)

        def below(x, m):
            return betting_mart(x, m, lambdas_fn_negative=lambda x, m: np.maximum(-stake(x, m), 0), theta=0, trunc_scale=truncation)

    except ImportError:
        source = "its definition in NumPy (confseq is not installed)"

        def above(x, m):
            return np.cumprod(1 + np.clip(stake(x, m), 0, truncation / m) * (x - m))

        def below(x, m):
            return np.cumprod(1 + np.clip(stake(x, m), -truncation / (1 - m), 0) * (x - m))

    paths = []
    for one in input["lists"]:
        x, m = np.array(one["values"]), one["mean"]
        paths.append({"above": np.log(above(x, m)).tolist(), "below": np.log(below(x, m)).tolist()})
    return {"source": source, "paths": paths}


def figure_statgate(input):
    """What statgate says of each table of successes; two thousand resamples instead of its ten, for time."""
    from statgate.config import GateSettings
    from statgate.records import EvalRecord
    from statgate.verdict import evaluate_gate

    settings = GateSettings(metric="pass_rate", margin=input["margin"], resamples=2000, permutations=200, seed=1)

    def records(table):
        return [
            EvalRecord(case_id=f"case-{case:04}", passed=passed, run_index=number)
            for case, trials in enumerate(table)
            for number, passed in enumerate(trials)
        ]

    return [str(evaluate_gate(records(before), records(after), settings).verdict) for before, after in input["tables"]]


def main():
    if sys.stdin.isatty():
        for numbers in (normal, holm, sign_flips, studentised_relabelling, gaffke, bounds):
            numbers()
        return
    request = json.load(sys.stdin)
    answer = globals()[f"figure_{request['figure'].lower()}"](request["input"])
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
