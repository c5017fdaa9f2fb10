"""YAML files to a frozen config; see `load.load_config` and the schema in `defaults`."""

from vidformers.config.defaults import get_defaults
from vidformers.config.load import load_config
from vidformers.config.pyslowfast import mvit_arguments, rev_mvit_arguments, translate_pyslowfast

__all__ = ["get_defaults", "load_config", "mvit_arguments", "rev_mvit_arguments", "translate_pyslowfast"]
