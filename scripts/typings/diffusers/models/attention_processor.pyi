from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

class Attention(nn.Module):
    def __getattr__(self, name: str) -> Any: ...
    def set_processor(self, processor: Callable[..., Tensor]) -> None: ...

class AttnProcessor2_0:
    def __call__(self, *args: Any, **kwargs: Any) -> Tensor: ...

class XFormersAttnProcessor:
    def __call__(self, *args: Any, **kwargs: Any) -> Tensor: ...
