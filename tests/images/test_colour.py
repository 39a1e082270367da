"""The colour fixes."""

from __future__ import annotations

import torch

from seesr.images.colour import COLOR_FIXES, adain_fix, low_frequencies, wavelet_fix


def test_the_colour_fix_is_the_same_in_bands() -> None:
    target, source = torch.rand(1, 3, 1200, 40), torch.rand(1, 3, 1200, 40)
    expected = target - low_frequencies(target) + low_frequencies(source)
    assert (wavelet_fix(target, source) - expected).abs().max() < 1e-5


def test_colour_fixes_are_what_they_are_called() -> None:
    assert (COLOR_FIXES["wavelet"], COLOR_FIXES["adain"]) == (wavelet_fix, adain_fix)
    target = torch.rand(1, 3, 8, 8)
    assert COLOR_FIXES["none"](target, 1 - target) is target
