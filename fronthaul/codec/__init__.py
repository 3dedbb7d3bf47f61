"""Numbers to bits and back: bit streams, quantiser codebooks, O-RAN IQ formats."""
