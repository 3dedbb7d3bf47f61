"""Processing at a base station: channel estimation, preprocessing, encoder, quantiser, report."""
