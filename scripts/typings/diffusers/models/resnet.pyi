from typing import Any

from torch import nn

class ResnetBlock2D(nn.Module):
    def __getattr__(self, name: str) -> Any: ...
