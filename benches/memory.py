"""Bytes per callback and per scope, from the counting allocator in memory.rs."""
import json

import tools


def run(_options, known):
    figures = {"bytes": json.loads(tools.output([tools.build("memory")]))}
    tools.table("memory, in bytes", figures["bytes"], known.get("bytes", {}))
    return figures
