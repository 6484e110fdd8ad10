import torch

from cfii.training.validation import count_pixels, mean_dice


def test_counts():
    truth = torch.tensor([[[0, 1], [2, 2]]])
    prediction = torch.tensor([[[1, 1], [2, 0]]])
    assert count_pixels(prediction, truth, 2).tolist() == [[[1, 2, 1], [1, 1, 2]]]
    masks = torch.stack([truth == 1, truth == 2], 1)
    assert count_pixels(masks, masks.byte(), 2).tolist() == [[[1, 1, 1], [2, 2, 2]]]


def test_slices_of_a_volume_are_one_case():
    empty = torch.tensor([[0, 0, 0], [0, 0, 0]])
    counts = {
        "patient001_frame01_slice_0": torch.tensor([[1, 2, 1], [0, 0, 0]]),
        "patient001_frame01_slice_1": torch.tensor([[3, 3, 5], [0, 0, 0]]),
        "case0005_slice000": torch.tensor([[0, 0, 4], [2, 2, 2]]),
        "b": empty,
    }
    # class 1: 8 / 11 and 0; class 2: only in the second case
    assert abs(mean_dice(counts) - ((8 / 11 + 0) / 2 + 1) / 2) < 1e-6
    assert mean_dice({"b": empty}) == 0
