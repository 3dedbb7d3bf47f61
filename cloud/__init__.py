"""The central unit (cloud): collector, fusion rules, fusion centre."""
