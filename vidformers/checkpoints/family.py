"""What `load_weights` knows of a model family: whose weights it takes, and how they are fitted to a model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class Source:
    """A project whose checkpoints are understood.

    `matches` tells its weights by their names alone; `convert` is a pure function from its state dict to one
    in our names (and layouts), not yet fitted to any model.
    """

    name: str
    matches: Callable[[Iterable[str]], bool]
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]


@dataclass
class Adapted:
    """A state dict that fits a model, with the names that were resized or inflated on the way."""

    state: dict[str, Tensor]
    resized: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Family:
    """The sources of a model class, tried in this order, and `adapt`: weights in our names -> weights that
    fit the given model (another input size, image to video); what it cannot fit it leaves as it is."""

    sources: tuple[Source, ...]
    adapt: Callable[[dict[str, Tensor], nn.Module], Adapted]
