"""A run on a Ray cluster: the driver, the workers that ask, and the desk that holds what they have in common.

Placement, restarts and retries are Ray's. A worker runs what a run in one process does (``Asking``, ``PoolWork``) over
one shard after another. Ray is imported when a run asks for it, and only by ``cluster``; ``map_prompts`` is a stage for
programs that use Ray Data themselves.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchchat.ray.stage import map_prompts

__all__ = ["map_prompts"]


def __getattr__(name: str) -> Any:
    """Imports the stage when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from batchchat.ray.stage import map_prompts as found

    globals()[name] = found
    return found
