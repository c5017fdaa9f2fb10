"""Weights from files: read safely, recognised by their names, converted, fitted and checked."""

from vidformers.checkpoints.load import LoadInfo, load_weights, to_our_names
from vidformers.checkpoints.read import find_state_dict, read_checkpoint

__all__ = ["LoadInfo", "find_state_dict", "load_weights", "read_checkpoint", "to_our_names"]
