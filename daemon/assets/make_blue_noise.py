"""Makes blue-noise.bin beside this file: a dither texture of 64 by 64 numbers from 0 to 255, sixteen of each.

Void and cluster, as Robert Ulichney describes it ("The void-and-cluster method for dither array generation", 1993): each
rank is the place that lies in the largest void of those that have a rank, by a Gaussian that wraps around. Whole numbers
alone, so that every machine makes the same file.
"""

from pathlib import Path

import numpy as np

SIDE, SIGMA = 64, 1.9
rng = np.random.RandomState(7)

distance = np.minimum(np.arange(SIDE), SIDE - np.arange(SIDE)).astype(float)
squared = distance[:, None] ** 2 + distance[None, :] ** 2
kernel = np.rint(np.exp(-squared / (2 * SIGMA**2)) * (1 << 40)).astype(np.int64)


def around(place):
    return np.roll(kernel, divmod(place, SIDE), axis=(0, 1)).ravel()


def energy(places):
    total = np.zeros(SIDE * SIDE, np.int64)
    for place in places:
        total += around(place)
    return total


def extreme(values, allowed, largest):
    candidates = np.flatnonzero(allowed)
    at = values[candidates].argmax() if largest else values[candidates].argmin()
    return int(candidates[at])


# A first tenth, evenly spread: the tightest cluster goes into the largest void until that is the same place.
count = SIDE * SIDE // 10
taken = np.zeros(SIDE * SIDE, bool)
taken[rng.permutation(SIDE * SIDE)[:count]] = True
field = energy(np.flatnonzero(taken))
while True:
    cluster = extreme(field, taken, True)
    taken[cluster] = False
    field -= around(cluster)
    void = extreme(field, ~taken, False)
    taken[void] = True
    field += around(void)
    if void == cluster:
        break

ranks = np.zeros(SIDE * SIDE, np.int64)
first, rest = taken.copy(), field.copy()
for rank in reversed(range(count)):
    cluster = extreme(rest, first, True)
    first[cluster] = False
    rest -= around(cluster)
    ranks[cluster] = rank
for rank in range(count, SIDE * SIDE):
    void = extreme(field, ~taken, False)
    taken[void] = True
    field += around(void)
    ranks[void] = rank

Path(__file__).with_name("blue-noise.bin").write_bytes((ranks // 16).astype(np.uint8).tobytes())
