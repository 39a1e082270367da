# So that types are the same whether xformers is installed or not.
from torch import Tensor

def memory_efficient_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor: ...
