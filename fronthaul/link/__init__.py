"""Link models: rate, delay, jitter, loss and other impairments, as configured, as drawn and as achieved."""
