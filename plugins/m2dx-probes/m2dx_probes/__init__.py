"""Probes of frozen encoders beside the core's: over all tokens, of labels that are numbers, and with few labels."""

import m2dx


@m2dx.hookimpl
def evaluators() -> list[type]:
    from m2dx_probes.attentive import Attentive
    from m2dx_probes.linear import Linear
    from m2dx_probes.prototype import Prototype
    from m2dx_probes.ridge import Ridge

    return [Attentive, Linear, Prototype, Ridge]
