"""Link models: rate, delay, jitter, loss and the rest, as configured, as drawn, and as achieved."""
