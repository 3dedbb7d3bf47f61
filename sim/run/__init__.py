"""Running the emulator: drivers, placement, run folders, reports."""
