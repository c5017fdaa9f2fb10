"""The two-layer perceptron of a transformer block."""

from torch import Tensor, nn


class Mlp(nn.Module):
    """Linear, exact (erf) GELU, Linear, with dropout after the activation and after the second Linear."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, dropout_rate: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(in_dim, hidden_dim)
        self.act: nn.Module = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, out_dim)
        self.drop = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
