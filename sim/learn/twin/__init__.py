"""The map of `twin`: anchors of traced paths, and the allocation of a report's bits."""
