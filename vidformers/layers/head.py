"""The classifier at the end of every family."""

from torch import Tensor, nn


class ClassifierHead(nn.Module):
    """Dropout and the classifier Linear; gives logits in training and in evaluation."""

    def __init__(self, dim: int, num_classes: int, dropout_rate: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout_rate)
        self.projection = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.dropout(x))
