"""What a run is: settings, options of schemes, weights, and the parts made of them."""
