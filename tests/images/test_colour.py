"""The colour fixes."""

from __future__ import annotations

import skimage.color
import torch

from seesr.images.colour import COLOR_FIXES, adain_fix, from_lab, lab_fix, low_frequencies, to_lab, wavelet_fix


def test_the_colour_fix_is_the_same_in_bands() -> None:
    target, source = torch.rand(1, 3, 1200, 40), torch.rand(1, 3, 1200, 40)
    expected = target - low_frequencies(target) + low_frequencies(source)
    assert (wavelet_fix(target, source) - expected).abs().max() < 1e-5


def test_colour_fixes_are_what_they_are_called() -> None:
    assert (COLOR_FIXES["wavelet"], COLOR_FIXES["lab"], COLOR_FIXES["adain"]) == (wavelet_fix, lab_fix, adain_fix)
    target = torch.rand(1, 3, 8, 8)
    assert COLOR_FIXES["none"](target, 1 - target) is target


def test_cielab_is_that_of_scikit_image_and_comes_back() -> None:
    rgb = torch.rand(1, 3, 40, 30)
    expected = skimage.color.rgb2lab(rgb[0].permute(1, 2, 0).double().numpy())
    assert abs(to_lab(rgb)[0].permute(1, 2, 0).numpy() - expected).max() < 0.02
    outside = torch.cat([rgb, rgb - 0.3, rgb + 0.4])
    assert (from_lab(to_lab(outside)) - outside).abs().max() < 1e-3


def test_low_frequencies_of_cielab_come_from_the_source() -> None:
    target, source = torch.rand(1, 3, 1200, 40), 0.5 * torch.rand(1, 3, 1200, 40) + 0.2
    lab = to_lab(target)
    expected = from_lab(lab + low_frequencies(to_lab(source) - lab))
    assert (lab_fix(target, source) - expected).abs().max() < 1e-3
    tinted = (source * torch.tensor([1.1, 1.0, 0.8])[:, None, None]).clamp(0, 1)
    casts = [(image - source).mean(dim=(2, 3)).abs().max() for image in (tinted, lab_fix(tinted, source))]
    assert casts[1] < 0.1 * casts[0]
