"""Messages between base stations and cloud: as values, as bytes, and their fates."""
