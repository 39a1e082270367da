from typing import Any

from diffusers import _Model
from torch import Tensor

class Transformer2DModel(_Model):
    use_linear_projection: bool
    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any: ...
    def _get_output_for_continuous_inputs(
        self, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int, inner_dim: int
    ) -> Tensor: ...
