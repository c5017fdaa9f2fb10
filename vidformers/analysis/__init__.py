"""What a model is and what it uses: complexity, and the temporal-dependence ablation.

    from vidformers.analysis import summarize_ablation, temporal_dependence

    table = temporal_dependence(model, dataset, perturbations=["shuffle", "reverse"])
    summary = summarize_ablation(table, seed=0, num_resamples=10_000, seconds_per_frame=4 / 30, num_frames=16)

The names are imported when first used: the statistics need the extra `analysis`, the scores do not.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidformers.analysis.ablation_table import AblationTable as AblationTable
    from vidformers.analysis.temporal import temporal_dependence as temporal_dependence
    from vidformers.analysis.temporal_summary import compare_ablations as compare_ablations
    from vidformers.analysis.temporal_summary import summarize_ablation as summarize_ablation

_HOME = {
    "AblationTable": "ablation_table",
    "compare_ablations": "temporal_summary",
    "summarize_ablation": "temporal_summary",
    "temporal_dependence": "temporal",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vidformers.analysis' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vidformers.analysis.{_HOME[name]}"), name)
