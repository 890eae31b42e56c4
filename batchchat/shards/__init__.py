"""The input of a run cut into shards by position, the folder in which workers write their parts, and the way back.

A shard says which lines of a file are to be asked; who has it reads them there. Its answers go to a journal of its own,
a results file like any other, so that a shard whose worker died goes on where it was. See ``results.parts``.
"""

__all__: list[str] = []
