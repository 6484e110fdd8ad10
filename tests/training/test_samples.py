import numpy as np
import pytest
import torch
from cases_in_memory import Given
from torch.utils.data import DataLoader

from cfii.training.files import DataError
from cfii.training.resize import Resize
from cfii.training.samples import Samples


def test_batches():
    images = [np.random.default_rng(i).random((1, 20 + i, 16), dtype=np.float32) for i in range(5)]
    samples = Samples(Given(images, [(image[0] > 0.5).astype(np.uint8) for image in images]), Resize(12))
    batch = next(iter(DataLoader(samples, 5)))
    assert batch["image"].shape == (5, 1, 12, 12) and batch["image"].dtype == torch.float32
    assert batch["label"].shape == (5, 12, 12) and batch["label"].dtype == torch.uint8
    assert batch["index"].tolist() == list(range(5))


def test_multilabel():
    image, label = np.zeros((1, 8, 8), np.float32), np.ones((3, 8, 8), bool)
    sample = Samples(Given([image], [label], "abc", multilabel=True), Resize(4))[0]
    assert sample["label"].shape == (3, 4, 4) and sample["label"].dtype == torch.bool


def test_what_cannot_be_trained_on_is_named():
    image = np.zeros((1, 8, 8), np.float32)
    with pytest.raises(DataError, match=r"case0\.npz: .*no labels"):
        Samples(Given([image], [None]), Resize(4))[0]
    with pytest.raises(DataError, match=r"case0\.npz: .*a volume; cut it with Slices"):
        Samples(Given([image[None]], [image]), Resize(4))[0]


def test_the_cache_is_bounded():
    images = [np.random.default_rng(i).random((1, 256, 256), dtype=np.float32) for i in range(4)]
    cases = Given(images, [(image[0] > 0.5).astype(np.uint8) for image in images])
    reads, load = [], cases.load
    cases.load = lambda index: reads.append(index) or load(index)
    samples = Samples(cases, Resize(256), cache_gb=2.5 * 5 * 256**2 / 2**30)
    first = [samples[i]["image"] for i in range(4)]
    again = [samples[i]["image"] for i in range(4)]
    assert reads == [0, 1, 2, 3, 2, 3] and all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
