"""What runs centrally: collector, fusion rules, fusion centre."""
