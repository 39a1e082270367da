"""`seesr info`: prints versions, device, precision, memory and weights."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed_version

from seesr.cli.flags import DeviceFlag, DtypeFlag, WeightsFlag
from seesr.version import __version__

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "pillow", "numpy")


def info(device: DeviceFlag = "auto", dtype: DtypeFlag = "auto", weights: WeightsFlag = None) -> None:
    """Print versions, device, dtype, memory and weights."""
    import torch

    from seesr.machine.device import choose_device, choose_dtype, dtype_name
    from seesr.machine.memory import memory_bytes
    from seesr.weights.resolve import resolve_weights

    chosen = choose_device(device)
    free, total = memory_bytes(chosen)
    packages = ", ".join(f"{name} {installed_version(name)}" for name in PACKAGES)
    resolved = resolve_weights(weights)
    print(f"seesr    {__version__} (Python {platform.python_version()}; {packages})")
    devices = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    print(f"devices  {', '.join(devices + ['mps'] * torch.backends.mps.is_available())}")
    print(f"device   {chosen}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    print(f"dtype    {dtype_name(choose_dtype(dtype, chosen, resolved.defaults.dtype, total))}")
    print(f"weights  {resolved.name}: {resolved.root}")
