"""The radio world: scenarios, ray tracing, path data sets, channel synthesis, position error bound."""
