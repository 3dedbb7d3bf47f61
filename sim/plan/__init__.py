"""Definition of a run: settings, scheme options, weights, and the parts built from them."""
