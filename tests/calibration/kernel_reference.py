"""Reference values and timings for the kernel tests on embeddings, from SciPy and NumPy, as JSON.

Run: tests/calibration/kernel_reference.py values [DRAWS] | timings
`values` gives the numbers that stand in the tests of analyzer/src/stats/kernel: an enumerated sign flip test by SciPy, and
the observed statistics and tail probabilities (by 1e7 draws) of made-up sessions. `timings` gives how long NumPy takes for
the within-session statistic with 1000 permutations, and OpenBLAS for matrix products, on one thread.
"""

import itertools
import json
import os
import sys
import time

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"
# Set by some sandboxes; they would hold OpenBLAS to kernels of an older machine.
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

import numpy as np
from scipy import stats


def sign_flips():
    """12 sessions of one trial in each arm: the cross-session statistic under every sign flip."""
    k = np.arange(12)
    g = np.stack([0.25 * (k % 5) - 0.375, 0.5 - 0.125 * (k % 7), 0.0625 * (k % 3)], axis=1)

    def cross(signs, axis=-1):
        total = np.moveaxis(np.asarray(signs), axis, -1) @ g
        return (total**2).sum(-1) - (g**2).sum()

    result = stats.permutation_test(
        (np.ones(12),), cross, permutation_type="samples", n_resamples=np.inf, alternative="greater", vectorized=True
    )
    return float(result.pvalue)


def sessions(cases=50, trials=8, dimension=32):
    """Numbers that any language makes alike: a 32 bit hash of their place, to ten bits."""
    n = np.arange(cases * trials * dimension, dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    h = n * np.uint64(2654435761) & mask
    h ^= h >> np.uint64(15)
    h = h * np.uint64(2246822519) & mask
    h ^= h >> np.uint64(13)
    x = ((h >> np.uint64(22)).astype(np.float64) / 1024 - 0.5).reshape(cases, trials, dimension)
    for case in range(cases):
        x[case, trials // 2 :, case % dimension] += 0.125
    return x


def weights(n, k):
    """Row r: relabelling r; the observed one (the last k trials are the candidate's) first."""
    rows = []
    for chosen in sorted(itertools.combinations(range(n), k), reverse=True):
        row = np.full(n, -1.0 / (n - k))
        row[list(chosen)] = 1.0 / k
        rows.append(row)
    return np.array(rows)


def tables(x):
    """The three statistics of each session under every relabelling, and the bandwidth."""
    cases, n, _ = x.shape
    k = n // 2
    square = ((x[:, :, None, :] - x[:, None, :, :]) ** 2).sum(-1)
    pairs = np.triu_indices(n, 1)
    distances = np.sort(np.sqrt(square[:, pairs[0], pairs[1]]).ravel())
    bandwidth = distances[(len(distances) - 1) // 2]
    kernel = np.exp(-square / (2 * bandwidth**2))
    kernel[:, range(n), range(n)] = 0
    w = weights(n, k)
    inside = 1 / (k * (k - 1))
    within = np.zeros((cases, len(w)))
    dispersion = np.zeros((cases, len(w)))
    for r, row in enumerate(w):
        c, b = row > 0, row < 0
        within[:, r] = (kernel[:, c][:, :, c].sum((1, 2)) + kernel[:, b][:, :, b].sum((1, 2))) * inside
        within[:, r] -= 2 * kernel[:, c][:, :, b].mean((1, 2))
        dispersion[:, r] = 0.5 * inside * (square[:, b][:, :, b].sum((1, 2)) - square[:, c][:, :, c].sum((1, 2)))
    g = x[:, k:].mean(1) - x[:, :k].mean(1)
    cross = (g.sum(0) ** 2).sum() - (g**2).sum()
    return bandwidth, within, dispersion, cross


def tails(table, draws, block=500_000):
    """P(sum >= mean + z deviations) for some z, and P(sum <= mean - z deviations), by drawing an entry of each row."""
    generator = np.random.default_rng(11)
    mean = table.mean(1).sum()
    deviation = np.sqrt(table.var(1).sum())
    zs = np.array([0.0, 1.0, 2.0, 3.0, 3.5])
    high, low = np.zeros(len(zs)), np.zeros(len(zs))
    for _ in range(draws // block):
        total = np.zeros(block)
        for row in table:
            total += row[generator.integers(0, len(row), block)]
        z = (total - mean) / deviation
        high += (z[:, None] >= zs).sum(0)
        low += (z[:, None] <= -zs).sum(0)
    return {
        "observed": float(table[:, 0].sum()),
        "deviation": float(deviation),
        "at_least": (high / draws).tolist(),
        "at_most": (low / draws).tolist(),
    }


def values(draws=10_000_000):
    bandwidth, within, dispersion, cross = tables(sessions())
    return {
        "sign_flips": sign_flips(),
        "bandwidth": float(bandwidth),
        "cross": float(cross),
        "within": tails(within, draws),
        "dispersion": tails(dispersion, draws),
    }


def numpy_within(x, permutations=1000):
    """The within-session statistic and its p by relabelling within sessions, as one would write it in NumPy."""
    cases, n, _ = x.shape
    k = n // 2
    gram = x @ x.transpose(0, 2, 1)
    norms = np.einsum("ijj->ij", gram)
    square = norms[:, :, None] + norms[:, None, :] - 2 * gram
    pairs = np.triu_indices(n, 1)
    bandwidth = np.median(square[:, pairs[0], pairs[1]])
    kernel = np.exp(-square / (2 * bandwidth))
    kernel[:, range(n), range(n)] = 0
    rows = kernel.sum(2)
    total = rows.sum(1)
    generator = np.random.default_rng(1)

    def statistic(chosen):
        # chosen: cases x n, 1 where the trial is the candidate's.
        inside = (chosen * (kernel @ chosen[:, :, None])[:, :, 0]).sum(1)
        between = (chosen * rows).sum(1) - inside
        # Both arms have as many trials, so what lies within them is what does not lie between.
        return ((total - 2 * between) / (k * (k - 1)) - 2 * between / (k * k)).sum()

    labels = np.zeros((cases, n), dtype=np.float32)
    labels[:, k:] = 1
    observed = statistic(labels)
    hits = sum(statistic(generator.permuted(labels, axis=1)) >= observed for _ in range(permutations))
    return observed, (hits + 1) / (permutations + 1)


def best(runs, work):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def timings():
    generator = np.random.default_rng(3)
    x = generator.normal(size=(500, 16, 384)).astype(np.float32)
    within = best(3, lambda: numpy_within(x))
    products = []
    for rows, inner, columns in ((128, 2048, 384), (1024, 1024, 1024)):
        a = generator.normal(size=(rows, inner)).astype(np.float32)
        b = generator.normal(size=(inner, columns)).astype(np.float32)
        took = best(50, lambda: a @ b)
        gflops = 2e-9 * rows * inner * columns / took
        products.append({"rows": rows, "inner": inner, "columns": columns, "gflops": gflops})
    return {"within_ms": 1000 * within, "products": products}


if __name__ == "__main__":
    asked = {"values": values, "timings": timings}[sys.argv[1]]
    print(json.dumps(asked(*map(int, sys.argv[2:]))))
