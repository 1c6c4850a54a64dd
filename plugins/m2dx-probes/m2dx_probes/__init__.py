"""Probes of frozen encoders beside the core's: over the map of all tokens, and by the number of labels."""

import m2dx


@m2dx.hookimpl
def evaluators() -> list[type]:
    from m2dx_probes.attentive import Attentive
    from m2dx_probes.prototype import Prototype

    return [Attentive, Prototype]
