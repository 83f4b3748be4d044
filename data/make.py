#!/usr/bin/env python3
"""Makes the bundled data sets; README.md beside this file describes them.

    python3 make.py FASHION_MNIST_FOLDER SEGLEARN_WHEEL

needs numpy and pillow. The encoded bytes depend on the version of zlib; what they decode to does
not, and its SHA-256 is printed here and checked by the tests of the library.
"""

import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
# Samples kept of each recording: the shortest has 947, and 13 windows of 128 by steps of 64 fit.
KEPT = 896
# Least significant bits per unit: 2 mg, and 0.5 degrees per second (the source has g and rad/s).
SCALE = np.array([500.0] * 3 + [2 * 180 / np.pi] * 3)


def fashion(folder, part, per_class, name):
    """The first `per_class` images of each class, a row of images per class, as one grey PNG."""
    images = gzip.open(folder / f"{part}-images-idx3-ubyte.gz").read()
    labels = gzip.open(folder / f"{part}-labels-idx1-ubyte.gz").read()
    images = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer(labels, np.uint8, offset=8)
    chosen = np.stack([images[labels == c][:per_class] for c in range(10)])
    mosaic = chosen.transpose(0, 2, 1, 3).reshape(10 * 28, per_class * 28)
    Image.fromarray(mosaic).save(HERE / name, optimize=True)
    report(name, chosen.tobytes())


def watch(wheel, name):
    """The start of each recording, by subject, exercise and side, as gzipped second differences."""
    raw = zipfile.ZipFile(wheel).read("seglearn/data/watch_dataset.npy")
    source = np.load(io.BytesIO(raw), allow_pickle=True).item()
    order = np.lexsort((source["side"], source["y"], source["subject"]))
    keys = [(source["subject"][i], source["y"][i], source["side"][i]) for i in order]
    assert keys == [(s, y, side) for s in range(1, 11) for y in range(7) for side in range(2)]
    recordings = np.stack([np.round(source["X"][i][:KEPT] * SCALE) for i in order]).astype("<i2")

    steps = recordings.astype(np.int32)
    for _ in range(2):
        steps = np.diff(steps, axis=1, prepend=0)
    assert np.abs(steps).max() < 1 << 15
    # Channel by channel; the sign goes to the lowest bit; then all low bytes, then all high bytes.
    steps = steps.transpose(2, 0, 1)
    zigzag = ((steps << 1) ^ (steps >> 31)).astype("<u2").view(np.uint8).reshape(-1, 2)
    (HERE / name).write_bytes(gzip.compress(zigzag.T.tobytes(), 9, mtime=0))
    report(name, recordings.tobytes())


def report(name, decoded):
    print(f"{name}: {(HERE / name).stat().st_size} bytes, decoded {hashlib.sha256(decoded).hexdigest()}")


if __name__ == "__main__":
    fashion(Path(sys.argv[1]), "train", 500, "fashion-mini-train.png")
    fashion(Path(sys.argv[1]), "t10k", 100, "fashion-mini-test.png")
    watch(sys.argv[2], "watch.gz")
